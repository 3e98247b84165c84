// The page of `tagger serve`: files come in, are tagged two at a time, and are shown.

import { models, segments, token } from "./api.js";
import { Recording, level, microphone, waveform } from "./audio.js";
import { $, clock, make, say } from "./dom.js";
import { drawMotif, forget } from "./draw.js";
import { Live } from "./live.js";
import { applies, threshold } from "./segments.js";
import { View } from "./view.js";

const AT_ONCE = 2; // requests
const LONGEST = 600; // seconds of a recording, which the browser holds in memory

const entries = [];
let chosen = null;
let locked = false; // until there is a token
let running = 0;

const model = $("#model");
const view = new View($("#shown"), { again, model: () => model.value, summary });
const live = new Live($("#live"), { model: () => model.value, refused: askToken });

// --- The server's models, and its token ---------------------------------------------------------

async function loadModels() {
  $("#notice").hidden = true;
  try {
    const known = await models();
    model.replaceChildren(...known.map(({ name }) => make("option", { value: name }, name)));
    model.disabled = !known.length;
    if (!known.length) throw new Error("The server has no models: start it with one.");
  } catch (error) {
    if (error.status === 401) return askToken();
    $("#notice p").textContent = error.message;
    $("#notice").hidden = false;
    return;
  }
  next();
}

function askToken() {
  const again = locked;
  locked = true;
  $("#token-note").textContent = token.get() ? "The server did not take this token." : "";
  $("#token").hidden = false;
  if (!again) $("#token-field").focus();
}

$("#token").onsubmit = (event) => {
  event.preventDefault();
  token.set($("#token-field").value.trim());
  $("#token-field").value = "";
  $("#token").hidden = true;
  locked = false;
  if (model.disabled) loadModels();
  else next();
};
$("#notice button").onclick = loadModels;
model.onchange = () => {
  // A live run belongs to the model it began with.
  if (live.run) live.stop("Stopped: press Listen to go on with the other model.");
  if (chosen) again(chosen);
};

// --- Entries -------------------------------------------------------------------------------------

function add(files) {
  const added = [...files].map((file) => {
    const entry = { file, name: file.name, url: URL.createObjectURL(file), limits: new Map() };
    Object.assign(entry, { state: "waiting", note: "", answer: null, stop: new AbortController() });
    entry.item = listed(entry);
    entries.push(entry);
    update(entry);
    return entry;
  });
  if (!added.length) return;
  document.body.classList.remove("empty");
  $("#list").append(...added.map((entry) => entry.item));
  choose(added[0]);
  next();
}

function listed(entry) {
  const pick = make(
    "button",
    { type: "button", className: "pick", onclick: () => choose(entry) },
    make("span", { className: "name" }, entry.name),
    make("span", { className: "state" }),
    make("progress", { max: 1, value: 0, hidden: true, "aria-label": `Sent of ${entry.name}` }),
  );
  const remove = make("button", { type: "button", className: "remove", "aria-label": `Remove ${entry.name}` }, "×");
  remove.title = "Remove";
  remove.onclick = () => drop(entry);
  return make("li", {}, pick, remove);
}

/** What the list says of an entry, in one line. */
function summary({ state, note, answer }) {
  if (state !== "done") return note || { waiting: "Waiting", sending: "Sending …", tagging: "Tagging …" }[state];
  const on = answer.tags.filter((tag) => applies(answer, tag, threshold(answer, tag.label)));
  const best = (on.length ? on : answer.tags).slice(0, 3).map((tag) => tag.label);
  return `${clock(answer.seconds)} · ${best.join(", ")}`;
}

function update(entry, changes = {}) {
  const { state } = entry;
  Object.assign(entry, changes);
  entry.item.dataset.state = entry.state;
  $(".state", entry.item).textContent = summary(entry);
  if (entry.state !== state) {
    if (entry.state === "done") say(`${entry.name}: done, ${summary(entry)}`);
    if (entry.state === "error") say(`${entry.name}: ${entry.note}`);
  }
  view.changed(entry);
}

function choose(entry) {
  chosen = entry;
  for (const each of entries) {
    const pick = $(".pick", each.item);
    if (each === entry) pick.setAttribute("aria-current", "true");
    else pick.removeAttribute("aria-current");
  }
  view.show(entry);
  if (entry) draw(entry);
}

/** Waveforms are made of entries that are looked at, for decoding takes time and memory. */
async function draw(entry) {
  if (entry.wave || entry.drawing) return;
  entry.drawing = true;
  try {
    entry.wave = await waveform(entry.file);
  } catch (error) {
    entry.unheard = error.message;
  }
  entry.drawing = false;
  view.waved(entry);
}

function drop(entry) {
  const at = entries.indexOf(entry);
  entry.stop.abort();
  entries.splice(at, 1);
  entry.item.remove();
  const beside = entries[Math.min(at, entries.length - 1)] ?? null;
  if (entry === chosen) choose(beside);
  URL.revokeObjectURL(entry.url);
  document.body.classList.toggle("empty", !entries.length);
  // The button that had the keyboard's place is gone.
  (beside ? $(".pick", beside.item) : $("#choose")).focus();
  say(`${entry.name}: removed`);
  motif();
}

function again(entry) {
  entry.stop.abort();
  entry.stop = new AbortController();
  update(entry, { state: "waiting", note: "", answer: null });
  next();
}

/** Begin with whatever waits, in the order it came. */
function next() {
  while (!locked && model.value && running < AT_ONCE) {
    const entry = entries.find(({ state }) => state === "waiting");
    if (!entry) return;
    running += 1;
    tag(entry).finally(() => {
      running -= 1;
      next();
    });
  }
}

async function tag(entry) {
  const { signal } = entry.stop;
  const bar = $("progress", entry.item);
  update(entry, { state: "sending", note: "" });
  const sent = (share) => {
    if (signal.aborted) return;
    bar.hidden = share === 1;
    bar.value = share;
    if (share === 1) update(entry, { state: "tagging", note: "" });
    // Not shown in the view, which would be built anew each time.
    else $(".state", entry.item).textContent = `Sending, ${Math.floor(share * 100)} %`;
  };
  const busy = (note) => !signal.aborted && update(entry, { state: "busy", note });
  try {
    const answer = await segments(entry.file, entry.name, model.value, { signal, sent, busy });
    const kept = answer.labels.includes(entry.tag) ? entry.tag : answer.tags[0]?.label;
    update(entry, { state: "done", note: "", answer, tag: kept, limits: new Map() });
  } catch (error) {
    if (signal.aborted) return;
    if (error.status === 401) {
      update(entry, { state: "waiting", note: "Waiting for a token" });
      askToken();
    } else update(entry, { state: "error", note: error.message });
  } finally {
    if (!signal.aborted) bar.hidden = true;
  }
}

// --- Ways in -------------------------------------------------------------------------------------

$("#choose").onclick = () => $("#input").click();
$("#input").onchange = ({ target }) => {
  add(target.files);
  // Else the same file could not be chosen a second time.
  target.value = "";
};

const carries = (event) => event.dataTransfer?.types.includes("Files");
let inside = 0; // elements under the pointer: each enters and leaves for itself
addEventListener("dragenter", (event) => {
  if (!carries(event)) return;
  inside += 1;
  $("#over").hidden = false;
});
addEventListener("dragleave", (event) => {
  if (!carries(event)) return;
  inside = Math.max(0, inside - 1);
  $("#over").hidden = !inside;
});
addEventListener("dragover", (event) => carries(event) && event.preventDefault());
addEventListener("drop", (event) => {
  if (!carries(event)) return;
  event.preventDefault();
  inside = 0;
  $("#over").hidden = true;
  to("files");
  dropped(event.dataTransfer).then(add);
});

/** Files that were dropped, and the audio files in folders among them. */
async function dropped({ items, files }) {
  // Before any wait: afterwards the browser has forgotten them.
  const found = [...items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (!found.some((entry) => entry.isDirectory)) return [...files];
  return (await Promise.all(found.map((entry) => within(entry, false)))).flat();
}

async function within(entry, picky = true) {
  if (entry.isFile) {
    const file = await new Promise((resolve, reject) => entry.file(resolve, reject));
    // Beside songs there are covers and play lists.
    return picky && !/^audio\/(?!.*mpegurl)/.test(file.type) ? [] : [file];
  }
  const reader = entry.createReader();
  const inside = [];
  for (let some = [entry]; some.length; inside.push(...some)) {
    some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
  }
  inside.sort((a, b) => a.name.localeCompare(b.name, undefined, { numeric: true }));
  return (await Promise.all(inside.map((each) => within(each)))).flat();
}

const record = $("#record");
let recording = null;
record.onclick = () => (recording ? finish() : begin());

function recorded(text, bad = false) {
  $("#record-note").textContent = text;
  $("#record-note").classList.toggle("bad", bad);
}

async function begin() {
  const run = { sound: new Recording(), mic: null };
  recording = run;
  record.textContent = "Stop";
  record.setAttribute("aria-pressed", "true");
  recorded("Opening the microphone …");
  try {
    run.mic = await microphone((samples) => {
      if (recording !== run || !run.mic) return;
      run.sound.add(samples);
      record.style.setProperty("--level", level(samples));
      const seconds = run.sound.frames / run.mic.rate;
      const text = `Recording, ${clock(seconds)}`;
      if ($("#record-note").textContent !== text) recorded(text);
      if (seconds > LONGEST) finish();
    });
    if (recording !== run) run.mic.close();
  } catch (error) {
    if (recording === run) finish();
    recorded(error.message, true);
  }
}

function finish() {
  const { sound, mic } = recording;
  recording = null;
  mic?.close();
  record.textContent = "Record";
  record.setAttribute("aria-pressed", "false");
  recorded("");
  if (!mic || !sound.frames) return;
  const time = new Date().toTimeString().slice(0, 8).replaceAll(":", ".");
  add([sound.file(mic.rate, `Recording ${time}.wav`)]);
}

// --- Views ---------------------------------------------------------------------------------------

const tabs = [...document.querySelectorAll("nav [data-view]")];

function to(name) {
  for (const tab of tabs) {
    const on = tab.dataset.view === name;
    $(`#${tab.dataset.view}`).hidden = !on;
    if (on) tab.setAttribute("aria-current", "page");
    else tab.removeAttribute("aria-current");
  }
  document.body.dataset.view = name;
  if (name !== "live" && live.run) live.stop();
  motif();
}
for (const tab of tabs) tab.onclick = () => to(tab.dataset.view);

function motif() {
  if ($("#motif").clientWidth) drawMotif($("#motif"));
}
addEventListener("resize", motif);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  forget();
  motif();
  view.draw();
  live.draw();
});

to("files");
loadModels();
