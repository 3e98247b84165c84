// Tags of what the microphone hears.

import { socket } from "./api.js";
import { level, microphone } from "./audio.js";
import { $, clock, make, say } from "./dom.js";
import { drawTaggram } from "./draw.js";

const SHOWN = 30; // seconds
const ROWS = 12;
const TALL = 32; // as in the style sheet
const BEHIND = 20; // seconds of sound that may wait to be sent

export class Live {
  /** `model` gives the name of the chosen model; `refused` is called when a token is wanted. */
  constructor(root, { model, refused }) {
    Object.assign(this, { root, model, refused, run: null, history: [] });
    this.button = $("#listen", root);
    this.meter = $("#level", root);
    this.button.onclick = () => (this.run ? this.stop() : this.start());
    new ResizeObserver(() => this.draw()).observe(root);
  }

  note(text, bad = false) {
    const note = $("#live-note", this.root);
    note.textContent = text;
    note.classList.toggle("bad", bad);
  }

  async start() {
    // Whatever answers after the end of this run is of no more interest.
    const run = { mic: null, socket: null, info: null };
    this.run = run;
    this.button.textContent = "Stop";
    this.button.classList.replace("main", "stop");
    this.note("Opening the microphone …");
    try {
      run.mic = await microphone((samples) => this.run === run && this.heard(run, samples));
    } catch (error) {
      if (this.run === run) this.stop(error.message, true);
      return;
    }
    if (this.run !== run) return run.mic.close();
    this.meter.hidden = false;
    this.note("Connecting …");
    run.socket = socket(this.model());
    run.socket.onmessage = ({ data }) => this.run === run && this.told(run, JSON.parse(data));
    run.socket.onclose = ({ code, reason }) => {
      if (this.run !== run) return;
      if (code === 4401 || /token/i.test(reason)) this.refused();
      const broke = run.info
        ? "The connection to the server broke: press Listen to go on."
        : "The server does not take the sound. See whether it is running, then try again.";
      this.stop(reason || broke, true);
    };
  }

  heard(run, samples) {
    this.meter.value = level(samples);
    if (!run.info || run.socket.readyState !== WebSocket.OPEN) return;
    // A server that cannot follow would be told older and older sound.
    if (run.socket.bufferedAmount > BEHIND * run.info.sample_rate * 4) {
      this.stop("The server cannot follow: try a faster model or a faster connection.", true);
      return;
    }
    // All processors that run browsers are little-endian.
    run.socket.send(samples);
  }

  told(run, message) {
    if (message.error) {
      if (message.status === 401 || /token/i.test(message.error)) this.refused();
      this.stop(message.error, true);
    } else if (message.sample_rate) {
      run.info = message;
      run.mic.at(message.sample_rate);
      this.history = [];
      this.info = message;
      this.note(`Listening: the first tags come after ${message.window_seconds} s.`);
    } else if (message.scores) {
      this.history.push(message);
      while (this.history[0].time < message.time - SHOWN - 1) this.history.shift();
      this.note(`Listening for ${clock(message.time)}`);
      this.show();
    }
  }

  /** Rows keep their order as long as they may: by what was strongest over the whole time shown. */
  show() {
    const { tags, thresholds } = this.info;
    const now = this.history.at(-1).scores;
    const mean = tags.map((_, tag) => this.history.reduce((sum, { scores }) => sum + scores[tag], 0));
    this.rows = tags.map((_, tag) => tag).sort((a, b) => mean[b] - mean[a]).slice(0, ROWS);
    const list = $(".live-bars", this.root);
    $("#live-rows", this.root).hidden = false;
    // Bars stay the same elements, so that they move.
    while (list.children.length < this.rows.length) {
      const bar = make("span", { className: "bar" }, make("i"), make("b"));
      list.append(
        make("div", { className: "tag" }, make("span", { className: "name" }), bar, make("span", { className: "score" })),
      );
    }
    this.rows.forEach((tag, row) => {
      const element = list.children[row];
      const limit = thresholds?.[tag];
      element.classList.toggle("on", limit != null && now[tag] >= limit);
      $(".name", element).textContent = tags[tag];
      $(".name", element).title = tags[tag];
      $("i", element).style.width = `${now[tag] * 100}%`;
      $("b", element).hidden = limit == null;
      if (limit != null) $("b", element).style.left = `${limit * 100}%`;
      $(".score", element).textContent = now[tag].toFixed(2);
    });
    this.draw();
  }

  draw() {
    if (!this.history.length || this.root.hidden) return;
    const canvas = $("canvas", this.root);
    canvas.style.height = `${this.rows.length * TALL}px`;
    const end = this.history.at(-1).time;
    const times = this.history.map(({ time }) => time);
    const step = times.length > 1 ? times[1] - times[0] : 1;
    drawTaggram(canvas, {
      // An answer is of the sound before it.
      times: times.map((time) => time - step),
      last: end,
      rows: this.rows.map((tag) => this.history.map(({ scores }) => scores[tag])),
      from: end - SHOWN,
      to: end,
      tall: TALL,
    });
  }

  stop(text = "", bad = false) {
    const { run } = this;
    this.run = null;
    run?.mic?.close();
    run?.socket?.close();
    this.meter.hidden = true;
    this.button.textContent = "Listen";
    this.button.classList.replace("stop", "main");
    this.note(text || "Stopped.", bad);
    if (!text) say("Stopped listening.");
  }
}
