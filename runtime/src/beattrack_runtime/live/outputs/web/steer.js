// What the user asks for: buttons, keys and fields become commands, and what was chosen is shown,
// whichever page or terminal it came from.
"use strict";

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
function onPress(button) {
  button.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    event.preventDefault(); // no focus: the space bar goes on tapping
    press(button, button.dataset.command, event);
  });
  button.addEventListener("click", (event) => {
    if (event.detail === 0) press(button, button.dataset.command, event);
  });
}

const FACTORS = { 0.25: "/4", 0.5: "/2", 2: "×2", 4: "×4" };
const range = { typed: false, told: "" }; // typed: the fields hold what was not sent yet

function showChoices(status) {
  const factor = FACTORS[status.factor];
  $("factor").hidden = !factor;
  $("factor").textContent = factor || "";
  const meter = $("meter");
  if (document.activeElement !== meter) meter.value = String(status.meter);
  showRange(status.tempo_range, status.range_chosen);
}

function showRange(bpm, chosen) {
  const keep = $("keep");
  keep.setAttribute("aria-pressed", String(chosen));
  keep.dataset.command = chosen ? "tempo auto" : "tempo keep";
  const told = JSON.stringify([bpm, chosen]);
  if (told !== range.told) range.typed = false; // whoever changed it: that is how it is now
  range.told = told;
  const fields = [$("low"), $("high")];
  if (range.typed || fields.includes(document.activeElement)) return;
  fields.forEach((field, i) => {
    const shown = bpm ? String(Math.round(bpm[i])) : "";
    field.placeholder = shown; // dim: as at the start
    field.value = chosen ? shown : "";
  });
}

function prepareSteering() {
  for (const button of document.querySelectorAll("[data-command]")) onPress(button);
  const meter = $("meter");
  meter.add(new Option("as heard", "0", true));
  for (let beats = 1; beats <= 16; beats++) meter.add(new Option(String(beats), String(beats)));
  meter.addEventListener("change", () => send(`meter ${meter.value}`));
  $("meter-form").addEventListener("submit", (event) => event.preventDefault());
  $("range-form").addEventListener("input", () => (range.typed = true));
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
  d: "double", // as in the terminal
  h: "halve",
  k: "tempo keep",
  a: "tempo auto",
  ",": "nudge -5",
  ".": "nudge 5",
  r: "restart",
};

function onKey(event) {
  if (event.repeat || event.ctrlKey || event.altKey || event.metaKey) return;
  const target = event.target.closest("input, select, textarea, button");
  // Fields keep their keys; a button that was reached with the tab key keeps its space bar.
  if (target && (target.tagName !== "BUTTON" || event.key === " ")) return;
  const key = event.key.toLowerCase();
  if (key === "n") setNight(!isNight());
  if (/^[02-9]$/.test(key)) send(`meter ${key}`);
  const command = KEYS[event.key] || KEYS[key];
  if (!command) return;
  event.preventDefault();
  const button = document.querySelector(`[data-command="${command}"]`);
  press(button || $("keep"), command, event); // which stands for keep or auto, as it would change
}
