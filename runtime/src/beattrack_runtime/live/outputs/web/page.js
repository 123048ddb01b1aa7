// The live page: shows what the tracker reports, flashes on time, and steers it.
// Times named ...S are seconds of the server's monotonic clock, ...Ms milliseconds of this page's
// performance.now().
"use strict";

const VERSION = 1; // of the messages, docs/live.md
const PING_FIRST_MS = 40; // between the first pings, which find the clock quickly
const PING_FIRST = 12;
const PING_MS = 1000;
const CLOCK_KEEP_MS = 30000; // a ping older than this says nothing of the clock any more
const DRIFT = 50e-6; // by which two computers' clocks may run apart, seconds a second
const STALLED_MS = 150; // without a word for so long, the page counts on by itself ...
const CARRY_MS = 2000; // ... and after so long it stops
const DEAD_MS = 4000; // without a word for so long, the connection is made anew
const TOO_LATE_MS = 60; // a beat found so late is not flashed: a late flash is worse than none
const GLOW_MS = 90; // the lamp fades by 1/e in this time
const SCOPE_S = 8;
const CURVE_S = 120;
const RUNNING = ["locked", "holding"];

const $ = (id) => document.getElementById(id);
const calm = window.matchMedia("(prefers-reduced-motion: reduce)");

function median(values) {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted.length ? sorted[sorted.length >> 1] : NaN;
}

// ---- The server's clock, seen from here -------------------------------------------------------

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

// ---- The lamp ---------------------------------------------------------------------------------

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
    if (this.lastMs !== null && nowMs - this.lastMs < 60) {
      this.deltas.push(nowMs - this.lastMs);
      if (this.deltas.length > 31) this.deltas.shift();
    }
    this.lastMs = nowMs;
    const frameMs = this.deltas.length ? median(this.deltas) : 16.7;
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

const clock = new ServerClock();
const lamp = new Lamp(clock);
window.beattrack = { clock, lamp, flashes: lamp.flashes }; // for the browser's console and tests

function showBeat(beat) {
  $("count").textContent = beat.position;
  const dots = $("dots");
  if (dots.children.length !== beat.beats_per_bar) {
    dots.replaceChildren(
      ...Array.from({ length: beat.beats_per_bar }, () => document.createElement("i")),
    );
  }
  [...dots.children].forEach((dot, i) => dot.classList.toggle("on", i + 1 === beat.position));
  dots.setAttribute("aria-label", `Beat ${beat.position} of ${beat.beats_per_bar}`);
  if (document.activeElement !== $("meter")) $("meter").value = String(beat.beats_per_bar);
}

function clearBeat() {
  lamp.runs = false;
  lamp.waiting = [];
  $("count").textContent = "–";
  for (const dot of $("dots").children) dot.classList.remove("on");
}

function onFrame(nowMs) {
  requestAnimationFrame(onFrame);
  const beat = lamp.frame(nowMs);
  if (beat) showBeat(beat);
  const glow = calm.matches ? 0 : lamp.brightness(nowMs + 16);
  const one = lamp.lit !== null && lamp.lit.position === 1;
  $("glow-beat").style.opacity = one ? 0 : glow;
  $("glow-one").style.opacity = one ? glow : 0;
  $("count").classList.toggle("bright", glow > 0.5);
  if (clock.known) applyStates();
  if (nowMs - drawn.atMs > 45) {
    drawn.atMs = nowMs;
    drawScope(nowMs);
  }
}

// ---- State and numbers ------------------------------------------------------------------------

const drawn = { atMs: 0 };
const states = []; // changes of state that wait for their time
const history = { tempo: [], frames: [], levels: [], beats: [] };

function setState(state) {
  const pill = $("state");
  if (pill.dataset.state === state) return;
  pill.dataset.state = state;
  pill.textContent = state;
  document.body.dataset.state = state;
  if (!RUNNING.includes(state)) clearBeat();
}

function applyStates() {
  const nowMs = performance.now();
  while (states.length && clock.toMs(states[0].at) <= nowMs) setState(states.shift().state);
}

const whole = (value) => String(Math.round(value) || 0); // never "-0"
const number = (value, digits) => (value === null ? "–" : value.toFixed(digits));

function trim(list, sinceS, most) {
  while (list.length && (list[0].at < sinceS || list.length > most)) list.shift();
}

function onStatus(status) {
  if (!states.length) setState(status.state);
  $("bpm").textContent = number(status.tempo_bpm, 1);
  $("confidence").value = status.confidence;
  $("level").value = status.level_db === null ? -60 : Math.max(-60, status.level_db);
  $("decibels").textContent = status.level_db === null ? "–" : `${status.level_db.toFixed(0)} dBFS`;
  $("clipping").hidden = !status.clipping;
  $("health").textContent = `${status.source} · ${status.health}`;
  const at = status.at;
  const last = history.tempo[history.tempo.length - 1];
  if (!last || at - last.at >= 0.5) history.tempo.push({ at, bpm: status.tempo_bpm });
  history.levels.push({ at, db: status.level_db });
  for (const [when, beat, downbeat] of status.frames) history.frames.push({ at: when, beat, downbeat });
  trim(history.tempo, at - CURVE_S, 1000);
  trim(history.levels, at - SCOPE_S - 1, 1000);
  trim(history.frames, at - SCOPE_S - 1, 2000);
  trim(history.beats, at - SCOPE_S - 1, 200);
  showOutputs(status.outputs);
}

const COLUMNS = ["state", "sent", "late", "dropped", "reconnects"];

function showOutputs(outputs) {
  const body = $("outputs");
  const names = new Set(outputs.map((o) => o.name));
  for (const row of [...body.children]) if (!names.has(row.dataset.name)) row.remove();
  for (const output of outputs) {
    const row =
      [...body.children].find((r) => r.dataset.name === output.name) || addOutput(output.name);
    const input = row.querySelector("input");
    if (document.activeElement !== input) input.value = Math.round(output.delay_ms);
    for (const key of COLUMNS) {
      const cell = row.querySelector(`[data-key=${key}]`);
      const text = String(output[key]);
      if (cell.textContent !== text) cell.textContent = text;
    }
    row.dataset.state = output.state;
  }
}

function addOutput(name) {
  const row = $("outputs").insertRow();
  row.dataset.name = name;
  const head = document.createElement("th");
  head.scope = "row";
  head.textContent = name;
  row.append(head);
  const input = document.createElement("input");
  Object.assign(input, { type: "number", min: -250, max: 2000, step: 1, inputMode: "numeric" });
  input.setAttribute("aria-label", `Delay of ${name} in milliseconds, negative is early`);
  input.addEventListener("change", () => {
    if (input.checkValidity() && input.value !== "") send(`delay ${name} ${Number(input.value)}`);
    else answer("A delay is a number from -250 to 2000.", true);
  });
  row.insertCell().append(input);
  for (const key of COLUMNS) row.insertCell().dataset.key = key;
  return row;
}

setInterval(() => {
  const errors = lamp.errors();
  const parts = [];
  if (clock.known) parts.push(`clock of this screen ±${clock.errorMs.toFixed(1)} ms`);
  if (errors.n > 3)
    parts.push(`flashes ${whole(errors.median)} ms, 95 % within ${whole(errors.p95)} ms`);
  $("screen").textContent = parts.join(" · ") || "–";
  drawCurve();
}, 1000);

// ---- Pictures ---------------------------------------------------------------------------------

function begin(canvas) {
  const scale = window.devicePixelRatio || 1;
  const [width, height] = [canvas.clientWidth, canvas.clientHeight];
  if (canvas.width !== Math.round(width * scale)) canvas.width = Math.round(width * scale);
  if (canvas.height !== Math.round(height * scale)) canvas.height = Math.round(height * scale);
  const ink = canvas.getContext("2d");
  ink.setTransform(scale, 0, 0, scale, 0, 0);
  ink.clearRect(0, 0, width, height);
  ink.font = "12px system-ui, sans-serif";
  return { ink, width, height };
}

const colours = {};
function readColours() {
  const style = getComputedStyle(document.documentElement);
  for (const name of ["beat", "one", "level", "grid", "dim", "text"])
    colours[name] = style.getPropertyValue(`--${name}`).trim();
}

function line(ink, points, colour, widthPx) {
  ink.strokeStyle = colour;
  ink.lineWidth = widthPx;
  ink.lineJoin = "round";
  ink.beginPath();
  let drawing = false;
  for (const point of points) {
    if (point === null) drawing = false;
    else if (drawing) ink.lineTo(point[0], point[1]);
    else {
      ink.moveTo(point[0], point[1]);
      drawing = true;
    }
  }
  ink.stroke();
}

function drawScope(nowMs) {
  const { ink, width, height } = begin($("waves"));
  if (!clock.known) return;
  const nowS = clock.toS(nowMs);
  const x = (at) => width * (1 - (nowS - at) / SCOPE_S);
  ink.fillStyle = colours.level;
  for (let i = 1; i < history.levels.length; i++) {
    const { at, db } = history.levels[i];
    if (db === null) continue;
    const tall = height * Math.max(0, Math.min(1, (db + 60) / 60));
    const left = x(history.levels[i - 1].at);
    ink.fillRect(left, height - tall, Math.max(1, x(at) - left + 0.5), tall);
  }
  for (const { at, position } of history.beats) {
    if (at > nowS) continue;
    line(ink, [[x(at), 0], [x(at), height]], position === 1 ? colours.one : colours.grid,
      position === 1 ? 2 : 1);
  }
  const y = (share) => height - 2 - (height - 4) * share;
  line(ink, history.frames.map((f) => [x(f.at), y(f.beat)]), colours.beat, 2);
  line(ink, history.frames.map((f) => [x(f.at), y(f.downbeat)]), colours.one, 2);
}

function drawCurve() {
  const { ink, width, height } = begin($("curve"));
  const known = history.tempo.filter((p) => p.bpm !== null);
  if (!clock.known || !known.length) return;
  const nowS = clock.toS(performance.now());
  const values = known.map((p) => p.bpm);
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const middle = (low + high) / 2;
  const half = Math.max(10, (high - low) * 0.6);
  const y = (bpm) => height / 2 - ((bpm - middle) / half) * (height / 2 - 8);
  const step = [1, 2, 5, 10, 20, 50].find((s) => (2 * half) / s <= 5) || 100;
  ink.fillStyle = colours.dim;
  for (let bpm = Math.ceil((middle - half) / step) * step; bpm <= middle + half; bpm += step) {
    line(ink, [[34, y(bpm)], [width, y(bpm)]], colours.grid, 1);
    ink.fillText(String(bpm), 4, y(bpm) + 4);
  }
  const x = (at) => 34 + (width - 36) * (1 - (nowS - at) / CURVE_S);
  const points = history.tempo.map((p) => (p.bpm === null ? null : [Math.max(34, x(p.at)), y(p.bpm)]));
  line(ink, points, colours.beat, 2);
}

// ---- Steering ---------------------------------------------------------------------------------

let socket = null;

function send(command, pressedMs) {
  if (!socket || socket.readyState !== WebSocket.OPEN) {
    answer("Not connected.", true);
    return;
  }
  const message = { v: VERSION, type: "command", command };
  // A tap means the moment of the finger, not that of its arrival.
  if (pressedMs !== undefined && clock.known) message.at = clock.toS(pressedMs);
  socket.send(JSON.stringify(message));
  answer(command);
}

let answerTimer = 0;
function answer(text, wrong = false) {
  const line = $("answer");
  line.textContent = text;
  line.hidden = false;
  line.classList.toggle("wrong", wrong);
  clearTimeout(answerTimer);
  answerTimer = setTimeout(() => (line.hidden = true), wrong ? 6000 : 1500);
}

// The moment of an event on this page's clock; some browsers count from another origin.
function momentMs(event) {
  const nowMs = performance.now();
  return Math.abs(nowMs - event.timeStamp) < 1000 ? event.timeStamp : nowMs;
}

function press(button, command, event) {
  send(command, momentMs(event));
  button.classList.add("pressed");
  setTimeout(() => button.classList.remove("pressed"), 120);
}

// Fingers count when they come down. Clicks without a pointer come from keys or a screen reader.
function onPress(button, command) {
  button.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    event.preventDefault(); // no focus: the space bar goes on tapping
    press(button, command, event);
  });
  button.addEventListener("click", (event) => {
    if (event.detail === 0) press(button, command, event);
  });
}

function prepareSteering() {
  onPress($("tap"), "tap");
  for (const button of document.querySelectorAll("[data-command]"))
    onPress(button, button.dataset.command);
  const meter = $("meter");
  for (let beats = 1; beats <= 16; beats++) meter.add(new Option(String(beats), String(beats)));
  meter.value = "4";
  meter.addEventListener("change", () => send(`meter ${meter.value}`));
  $("meter-form").addEventListener("submit", (event) => event.preventDefault());
  $("range-form").addEventListener("submit", (event) => {
    event.preventDefault();
    send(`tempo ${Number($("low").value)} ${Number($("high").value)}`);
  });
}

const KEYS = {
  " ": "tap",
  1: "one",
  ArrowUp: "double",
  ArrowRight: "double",
  ArrowDown: "halve",
  ArrowLeft: "halve",
};

function onKey(event) {
  if (event.repeat || event.ctrlKey || event.altKey || event.metaKey) return;
  const target = event.target.closest("input, select, textarea, button");
  // Fields keep their keys; a button that was reached with the tab key keeps its space bar.
  if (target && (target.tagName !== "BUTTON" || event.key === " ")) return;
  if (event.key === "n" || event.key === "N") setNight(document.documentElement.dataset.theme !== "night");
  const command = KEYS[event.key];
  if (!command) return;
  event.preventDefault();
  press(command === "tap" ? $("tap") : document.querySelector(`[data-command=${command}]`), command, event);
}

function setNight(on) {
  document.documentElement.dataset.theme = on ? "night" : "dark";
  $("night").setAttribute("aria-pressed", String(on));
  readColours();
  drawCurve();
  try {
    localStorage.setItem("beattrack-night", on ? "1" : "");
  } catch {
    // a browser that keeps nothing: the choice lasts as long as the page
  }
}

function wantedNight() {
  try {
    return localStorage.getItem("beattrack-night") === "1";
  } catch {
    return false;
  }
}

// ---- Connection -------------------------------------------------------------------------------

const HANDLERS = {
  hello(message) {
    // Another process, or a clock that began anew: nothing that is known here holds any more.
    if (message.session === connection.session) return;
    connection.session = message.session;
    lamp.forget();
    for (const list of Object.values(history)) list.length = 0;
    states.length = 0;
  },
  pong(message, nowMs) {
    const sentMs = connection.pings.get(message.id);
    if (sentMs === undefined) return;
    connection.pings.delete(message.id);
    clock.add(sentMs, message.time, nowMs);
  },
  beat(message) {
    lamp.add(message);
    history.beats.push({ at: message.at, position: message.position });
  },
  state(message) {
    states.push(message);
  },
  status: onStatus,
  error(message) {
    answer(message.text, true);
  },
};

const connection = { pings: new Map(), pingId: 0, heardMs: 0, waitMs: 0, timer: 0 };

function showLink(state) {
  const pill = $("link");
  pill.dataset.link = state;
  pill.textContent = { open: "connected", lost: "reconnecting", late: "no word" }[state];
  const banner = $("banner");
  banner.hidden = state === "open";
  banner.textContent =
    state === "lost"
      ? "Connection lost: trying again. If beattrack was started anew, open the address that it printed."
      : "";
}

function connect() {
  const address = new URL("socket", location.href);
  address.search = location.search; // the token
  address.protocol = location.protocol === "https:" ? "wss:" : "ws:";
  const opened = new WebSocket(address);
  socket = opened;
  connection.heardMs = performance.now();
  connection.timer = setTimeout(() => {
    lose(opened); // the network is silent: the browser itself would wait for minutes
    opened.close();
  }, DEAD_MS);
  opened.addEventListener("open", () => {
    connection.waitMs = 0;
    clock.samples = [];
    connection.pings.clear();
    connection.first = PING_FIRST;
    showLink("open");
    ping();
  });
  opened.addEventListener("message", (event) => {
    if (socket !== opened) return;
    const nowMs = performance.now();
    connection.heardMs = lamp.heardMs = nowMs;
    let message;
    try {
      message = JSON.parse(event.data);
    } catch {
      return;
    }
    const handle = message.v === VERSION && HANDLERS[message.type];
    if (handle) handle(message, nowMs);
  });
  opened.addEventListener("close", () => lose(opened));
}

function lose(which) {
  if (socket !== which) return;
  socket = null;
  showLink("lost");
  clearTimeout(connection.timer);
  connection.waitMs = Math.min(5000, connection.waitMs * 2 || 250);
  setTimeout(connect, connection.waitMs * (0.75 + Math.random() / 2));
  setTimeout(() => {
    if (socket === null || socket.readyState !== WebSocket.OPEN) setState("searching");
  }, CARRY_MS);
}

function ping() {
  clearTimeout(connection.timer);
  if (!socket || socket.readyState !== WebSocket.OPEN) return;
  if (performance.now() - connection.heardMs > DEAD_MS) {
    const dead = socket;
    lose(dead); // close() waits for an answer that may never come
    dead.close();
    return;
  }
  const id = ++connection.pingId;
  connection.pings.set(id, performance.now());
  if (connection.pings.size > 32) connection.pings.delete(connection.pings.keys().next().value);
  socket.send(JSON.stringify({ v: VERSION, type: "ping", id }));
  connection.first = Math.max(0, connection.first - 1);
  connection.timer = setTimeout(ping, connection.first ? PING_FIRST_MS : PING_MS);
}

prepareSteering();
document.addEventListener("keydown", onKey);
$("night").addEventListener("click", () => setNight($("night").getAttribute("aria-pressed") !== "true"));
setNight(wantedNight());
connect();
requestAnimationFrame(onFrame);
