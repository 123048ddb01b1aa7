// The pictures: level, activations and beats of the last seconds, and the tempo of the last minutes.
"use strict";

const SCOPE_S = 8;
const CURVE_S = 120;

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
  ink.lineJoin = "bevel";
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

// `past` holds lists of {at, db}, {at, position} and {at, beat, downbeat}, times in seconds.
function drawScope(canvas, past, nowS) {
  const { ink, width, height } = begin(canvas);
  const x = (at) => width * (1 - (nowS - at) / SCOPE_S);
  ink.fillStyle = colours.level;
  for (let i = 1; i < past.levels.length; i++) {
    const { at, db } = past.levels[i];
    if (db === null) continue;
    const tall = height * Math.max(0, Math.min(1, (db + 60) / 60));
    const left = x(past.levels[i - 1].at);
    ink.fillRect(left, height - tall, Math.max(1, x(at) - left + 0.5), tall);
  }
  for (const { at, position } of past.beats) {
    if (at > nowS) continue;
    const one = position === 1;
    line(ink, [[x(at), 0], [x(at), height]], one ? colours.one : colours.grid, one ? 2 : 1);
  }
  const y = (share) => height - 2 - (height - 4) * share;
  line(ink, past.frames.map((f) => [x(f.at), y(f.beat)]), colours.beat, 2);
  line(ink, past.frames.map((f) => [x(f.at), y(f.downbeat)]), colours.one, 2);
}

// `tempo` is a list of {at, bpm}; bpm is null where none was known.
function drawCurve(canvas, tempo, nowS) {
  const { ink, width, height } = begin(canvas);
  const known = tempo.filter((p) => p.bpm !== null);
  if (!known.length) return;
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
  const points = tempo.map((p) => (p.bpm === null ? null : [x(p.at), y(p.bpm)]));
  line(ink, points, colours.beat, 2);
}
