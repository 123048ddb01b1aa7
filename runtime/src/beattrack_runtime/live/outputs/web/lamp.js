// When to flash: the server's clock seen from the page, and the lamp that follows it.
// Times named ...S are seconds of the server's monotonic clock, ...Ms milliseconds of the page's
// performance.now().
"use strict";

const CLOCK_KEEP_MS = 30000; // a ping older than this says nothing of the clock any more
const DRIFT = 50e-6; // by which two computers' clocks may run apart, seconds a second
const STALLED_MS = 150; // without a word for so long, the page counts on by itself ...
const CARRY_MS = 2000; // ... and after so long it stops
const TOO_LATE_MS = 60; // a beat found so late is not flashed: a late flash is worse than none
const GLOW_MS = 90; // the lamp fades by 1/e in this time

function median(values) {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted.length ? sorted[sorted.length >> 1] : NaN;
}

// A pong tells that the server's clock stood at `timeS` somewhere between ping and pong. The
// exchange of the shortest round trip says it best; older ones are widened by possible drift.
class ServerClock {
  constructor() {
    this.samples = [];
    this.best = null;
  }

  add(sentMs, timeS, receivedMs) {
    const half = (receivedMs - sentMs) / 2;
    this.samples.push({ offsetMs: timeS * 1000 - (sentMs + half), half, receivedMs });
    this.samples = this.samples.filter((s) => receivedMs - s.receivedMs < CLOCK_KEEP_MS);
    const bound = (s) => s.half + (receivedMs - s.receivedMs) * DRIFT;
    this.best = this.samples.reduce((a, b) => (bound(b) < bound(a) ? b : a));
    this.errorMs = bound(this.best); // the true offset is within this of the estimate
  }

  get known() {
    return this.best !== null;
  }

  toMs(timeS) {
    return timeS * 1000 - this.best.offsetMs;
  }

  toS(timeMs) {
    return (timeMs + this.best.offsetMs) / 1000;
  }
}

// Beats wait here until the picture that will be on the screen at their time is drawn. What is
// drawn in one animation frame is seen about one frame later, so the frame is chosen for which
// that moment is nearest to the beat.
class Lamp {
  constructor(clock) {
    this.clock = clock;
    this.flashes = []; // the last ones: {beat, position, dueMs, shownMs, carried}
    this.forget();
    this.deltas = [];
    this.lastMs = null;
    this.frameMs = 16.7; // between two frames
    this.unseen = null; // the flash drawn in the last frame; this frame's start is its time
    this.lit = null; // the flash that glows now
  }

  forget() {
    this.waiting = []; // messages of beats, by time
    this.done = null; // the last beat shown
    this.runs = false;
  }

  add(beat) {
    // After a jump the count may begin anew; else a beat that the page carried on to itself,
    // while no word came, is not shown twice.
    if (beat.jump) this.done = null;
    this.waiting = this.waiting.filter((b) => b.beat < beat.beat);
    if (this.done === null || beat.beat > this.done.beat) this.waiting.push(beat);
    if (this.waiting.length > 64) this.waiting.shift(); // a page in the background shows none
    this.runs = true;
  }

  // No word came when the next beat fell due: count on at the tempo of the last one.
  carry(nowMs, aheadMs) {
    if (this.waiting.length || this.done === null || !this.runs) return;
    const silenceMs = nowMs - this.heardMs;
    if (silenceMs < STALLED_MS || silenceMs > CARRY_MS) return;
    const at = this.done.at + 60 / this.done.tempo_bpm;
    if (this.clock.toMs(at) > nowMs + aheadMs) return;
    const position = (this.done.position % this.done.beats_per_bar) + 1;
    this.waiting.push({ ...this.done, beat: this.done.beat + 1, at, position, carried: true });
  }

  frame(nowMs) {
    if (this.lastMs !== null && nowMs - this.lastMs < 500) {
      this.deltas.push(nowMs - this.lastMs);
      if (this.deltas.length > 15) this.deltas.shift();
    }
    this.lastMs = nowMs;
    if (this.deltas.length) this.frameMs = median(this.deltas);
    const frameMs = this.frameMs;
    if (this.unseen) {
      this.unseen.shownMs = nowMs;
      this.flashes.push(this.unseen);
      if (this.flashes.length > 64) this.flashes.shift();
      this.unseen = null;
    }
    if (!this.clock.known) return null;
    this.carry(nowMs, 1.5 * frameMs);
    let due = null;
    while (this.waiting.length && this.clock.toMs(this.waiting[0].at) <= nowMs + 1.5 * frameMs)
      due = this.waiting.shift();
    if (due === null) return null;
    this.done = due;
    const dueMs = this.clock.toMs(due.at);
    if (nowMs + frameMs - dueMs > TOO_LATE_MS + frameMs / 2) return { ...due, dueMs, missed: true };
    this.unseen = { beat: due.beat, position: due.position, dueMs, carried: !!due.carried };
    this.lit = { ...due, dueMs };
    return this.lit;
  }

  dueWithin(ms, nowMs) {
    return this.waiting.length > 0 && this.clock.toMs(this.waiting[0].at) - nowMs < ms;
  }

  // Brightness of the lamp, 0-1, for a picture seen at `seenMs`.
  brightness(seenMs) {
    if (!this.lit || !this.runs) return 0;
    const glow = Math.exp(-Math.max(0, seenMs - this.lit.dueMs) / GLOW_MS);
    return glow < 0.02 ? 0 : glow;
  }

  // How well the last flashes kept time, ms: median and 95th percentile of |error|.
  errors() {
    const off = this.flashes.slice(-32).map((f) => f.shownMs - f.dueMs);
    const size = off.map(Math.abs).sort((a, b) => a - b);
    return { median: median(off), p95: size[Math.floor(0.95 * (size.length - 1))], n: off.length };
  }
}
