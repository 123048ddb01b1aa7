// The live page: shows what the tracker reports, flashes on time, and steers it.
// Times named ...S are seconds of the server's monotonic clock, ...Ms milliseconds of this page's
// performance.now().
"use strict";

const VERSION = 1; // of the messages, docs/live.md
const PING_FIRST_MS = 40; // between the first pings, which find the clock quickly
const PING_FIRST = 12;
const PING_MS = 1000;
const DEAD_MS = 4000; // without a word for so long, the connection is made anew
const RUNNING = ["locked", "holding"];

const $ = (id) => document.getElementById(id);
const calm = window.matchMedia("(prefers-reduced-motion: reduce)");

const clock = new ServerClock();
const lamp = new Lamp(clock);
window.beattrack = { clock, lamp, flashes: lamp.flashes }; // for the browser's console and tests

function showBeat(beat) {
  $("count").textContent = beat.position;
  const dots = $("dots");
  const missing = beat.beats_per_bar - dots.children.length;
  for (let i = 0; i < missing; i++) dots.append(document.createElement("i"));
  for (let i = 0; i > missing; i--) dots.lastElementChild.remove();
  [...dots.children].forEach((dot, i) => dot.classList.toggle("on", i + 1 === beat.position));
  dots.setAttribute("aria-label", `Beat ${beat.position} of ${beat.beats_per_bar}`);
  $("meter").options[0].text = `${beat.beats_per_bar}, heard`;
}

function clearBeat() {
  lamp.runs = false;
  lamp.waiting = [];
  $("count").textContent = "–";
  for (const dot of $("dots").children) dot.classList.remove("on");
}

function onFrame(nowMs) {
  requestAnimationFrame(onFrame);
  if (clock.known) applyStates();
  const beat = lamp.frame(nowMs);
  if (beat) showBeat(beat);
  const glow = calm.matches ? 0 : lamp.brightness(nowMs + lamp.frameMs);
  const one = lamp.lit !== null && lamp.lit.position === 1;
  $("glow-beat").style.opacity = one ? 0 : glow;
  $("glow-one").style.opacity = one ? glow : 0;
  $("count").classList.toggle("bright", glow > 0.5);
  if (clock.known) showScope(nowMs);
}

// The lamp comes first: the picture waits while a beat is near, and is drawn less often where
// the machine does not keep up.
function showScope(nowMs) {
  const slow = lamp.frameMs > 25;
  if (nowMs - drawn.atMs < (slow ? 500 : 70) || lamp.dueWithin(60, nowMs)) return;
  drawn.atMs = nowMs;
  drawScope($("waves"), past, clock.toS(nowMs));
}

// ---- State and numbers ------------------------------------------------------------------------

const drawn = { atMs: 0 };
const states = []; // changes of state that wait for their time
const past = { tempo: [], frames: [], levels: [], beats: [] };

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

function showBar(bar, value) {
  const [low, high] = ["min", "max"].map((end) => Number(bar.getAttribute(`aria-value${end}`)));
  const shown = Math.max(low, Math.min(high, value));
  bar.setAttribute("aria-valuenow", String(Math.round(shown)));
  bar.firstElementChild.style.width = `${(100 * (shown - low)) / (high - low)}%`;
}

function trim(list, sinceS, most) {
  while (list.length && (list[0].at < sinceS || list.length > most)) list.shift();
}

function onStatus(status) {
  if (!connection.toldState) setState(status.state);
  $("bpm").textContent = number(status.tempo_bpm, 1);
  showBar($("confidence"), 100 * status.confidence);
  showBar($("level"), status.level_db === null ? -60 : status.level_db);
  $("decibels").textContent = status.level_db === null ? "–" : `${status.level_db.toFixed(0)} dBFS`;
  $("clipping").hidden = !status.clipping;
  $("health").textContent = `${status.source} · ${status.health}`;
  const at = status.at;
  const last = past.tempo[past.tempo.length - 1];
  if (!last || at - last.at >= 0.5) past.tempo.push({ at, bpm: status.tempo_bpm });
  past.levels.push({ at, db: status.level_db });
  for (const [when, beat, downbeat] of status.frames)
    past.frames.push({ at: when, beat, downbeat });
  trim(past.tempo, at - CURVE_S, 1000);
  trim(past.levels, at - SCOPE_S - 1, 1000);
  trim(past.frames, at - SCOPE_S - 1, 2000);
  trim(past.beats, at - SCOPE_S - 1, 200);
  showOutputs(status.outputs);
  showChoices(status);
}

// What was true when the connection was lost must not look as if it were now.
function clearStatus() {
  $("bpm").textContent = "–";
  showBar($("confidence"), 0);
  showBar($("level"), -60);
  $("decibels").textContent = "–";
  $("clipping").hidden = true;
  $("health").textContent = "–";
  $("outputs").replaceChildren();
  showChoices({ factor: 1, meter: 0, tempo_range: null, range_chosen: false });
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
  const delay = row.insertCell();
  delay.className = "delay";
  delay.append(input);
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
  showCurve();
}, 1000);

// ---- Curve and night ------------------------------------------------------------------------

function showCurve() {
  if (clock.known) drawCurve($("curve"), past.tempo, clock.toS(performance.now()));
}

function setNight(on) {
  document.documentElement.dataset.theme = on ? "night" : "dark";
  $("night").setAttribute("aria-pressed", String(on));
  readColours();
  showCurve();
  try {
    localStorage.setItem("beattrack-night", on ? "1" : "");
  } catch {
    // a browser that keeps nothing: the choice lasts as long as the page
  }
}

const isNight = () => document.documentElement.dataset.theme === "night";

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
    connection.toldState = false;
    lamp.forget();
    for (const list of Object.values(past)) list.length = 0;
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
    past.beats.push({ at: message.at, position: message.position });
  },
  state(message) {
    connection.toldState = true; // from now on changes count, at their time; a status has no delay
    states.push(message);
    if (states.length > 16) states.shift(); // a page in the background shows none
  },
  status: onStatus,
  error(message) {
    answer(message.text, true);
  },
};

let socket = null;
const connection = {
  session: "",
  toldState: false,
  pings: new Map(), // id -> when it was sent
  pingId: 0,
  first: 0, // quick pings still to send
  heardMs: 0,
  waitMs: 0, // before the next attempt
  timer: 0,
};

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
    if (socket !== null && socket.readyState === WebSocket.OPEN) return;
    setState("searching");
    clearStatus();
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
$("night").addEventListener("click", () => setNight(!isNight()));
setNight(wantedNight());
connect();
requestAnimationFrame(onFrame);
