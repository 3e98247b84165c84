// Shows one entry: player, waveform, taggram, tags, segments.

import { FORMATS, download } from "./download.js";
import { $, clock, make } from "./dom.js";
import { drawAxis, drawTaggram, drawWave } from "./draw.js";
import { DEFAULT_THRESHOLD, applies, ends, stretches, threshold } from "./segments.js";

const ROWS = 12; // of the taggram
const TALL = 24; // height of each, as in the style sheet
const TAGS = 12; // shown at first
const JUMP = 10; // seconds, of Page Up and Page Down

const two = (score) => score.toFixed(2);
const icon = (path) => {
  const space = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(space, "svg");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("aria-hidden", "true");
  svg.append(document.createElementNS(space, "path"));
  svg.firstChild.setAttribute("d", path);
  return svg;
};
const PLAY = "M8 5.5v13l11-6.5z";
const PAUSE = "M7 5h3.5v14H7zM13.5 5H17v14h-3.5z";

export class View {
  /** `again` tags an entry anew, `model` names the chosen model, `summary` is what the list says. */
  constructor(root, { again, model, summary }) {
    Object.assign(this, { root, again, model, summary, entry: null });
    this.audio = new Audio();
    this.audio.preload = "metadata";
    this.audio.id = "audio";
    document.body.append(this.audio);
    const each = () => {
      this.place();
      if (!this.audio.paused) requestAnimationFrame(each);
    };
    for (const name of ["play", "pause", "ended"]) {
      this.audio.addEventListener(name, () => {
        this.playing();
        each();
      });
    }
    this.audio.addEventListener("seeked", () => this.place());
    this.audio.addEventListener("error", () => {
      // Without a file there is nothing to play, and nothing to say.
      if (!this.entry || !this.audio.getAttribute("src")) return;
      this.entry.silent = true;
      this.playing();
    });
    new ResizeObserver(() => this.draw()).observe(root);
  }

  show(entry) {
    if (entry !== this.entry) {
      this.audio.pause();
      if (entry) this.audio.src = entry.url;
      else this.audio.removeAttribute("src");
      this.at = 0;
    }
    this.entry = entry;
    this.root.hidden = !entry;
    if (entry) this.build();
  }

  /** Show anew what has changed, if the entry is the one that is shown. */
  changed(entry) {
    if (entry === this.entry) this.build();
  }

  /** The waveform is there, or is known not to come. Nothing else changes under the pointer. */
  waved(entry) {
    const note = entry === this.entry && $(".wave .note", this.root);
    if (!note) return;
    if (entry.wave) note.remove();
    else note.textContent = entry.unheard;
    this.draw();
  }

  get seconds() {
    const { answer, wave } = this.entry;
    return Math.max(answer?.seconds ?? wave?.seconds ?? this.audio.duration ?? 0, 1e-3) || 1e-3;
  }

  /** Threshold that is taken for a tag: the one that was set here, the model's, or the common one. */
  limit(label) {
    const own = threshold(this.entry.answer, label);
    return this.entry.limits.get(label) ?? (Number.isNaN(own) ? DEFAULT_THRESHOLD : own);
  }

  /** The mark at a tag's bar: none where neither the model nor anybody here set a threshold. */
  mark(label) {
    return this.entry.limits.get(label) ?? threshold(this.entry.answer, label);
  }

  build() {
    const { entry } = this;
    // What is built anew would lose the keyboard's place.
    const held = this.root.contains(document.activeElement) ? document.activeElement.dataset.key : null;
    this.root.replaceChildren(this.head());
    if (entry.state === "error") this.root.append(this.failure());
    else {
      this.root.append(this.stage());
      if (entry.answer) {
        this.root.append(make("div", { className: "below" }, this.tags(), make("section", { className: "segments" })));
        this.segments();
      }
    }
    if (held) $(`[data-key="${CSS.escape(held)}"]`, this.root)?.focus({ preventScroll: true });
    this.playing();
    this.draw();
  }

  head() {
    const { entry } = this;
    const { answer } = entry;
    const facts = make("p", { className: "note" });
    if (answer) {
      const parts = [clock(answer.seconds), `${answer.model} ${answer.version}`];
      parts.push(`tagged in ${Math.round(answer.decode_ms + answer.compute_ms)} ms`);
      if (answer.missing > 0) parts.push(`${Math.max(1, Math.round(answer.missing * 100))} % could not be read`);
      facts.append(parts.join(" · "));
    } else facts.append(entry.state === "error" ? "" : this.summary(entry));
    const buttons = make("div", { className: "buttons" });
    if (answer) {
      if (answer.model !== this.model()) buttons.append(this.anew(`Tag with ${this.model()}`));
      for (const format of Object.keys(FORMATS)) {
        const button = make("button", { type: "button", "aria-label": `Download ${format}` }, format);
        button.dataset.key = format;
        button.onclick = () => download(entry.name, format, answer, (label) => this.limit(label));
        buttons.append(button);
      }
    }
    const title = make("h2", { title: entry.name }, entry.name);
    return make("div", { className: "head" }, make("div", {}, title, facts), buttons);
  }

  anew(text) {
    return make("button", { type: "button", onclick: () => this.again(this.entry) }, text);
  }

  failure() {
    const text = make("p", { role: "alert" }, this.entry.note);
    return make("div", { className: "failure" }, make("h3", {}, "No tags"), text, this.anew("Try again"));
  }

  /** Player, waveform and taggram, on one axis of time. */
  stage() {
    const { entry } = this;
    const { answer } = entry;
    this.rows = [];
    if (answer) {
      this.rows = answer.tags.slice(0, ROWS).map((tag) => tag.label);
      if (!this.rows.includes(entry.tag)) this.rows.push(entry.tag);
    }
    const play = make("button", { type: "button", className: "play" });
    play.dataset.key = "play";
    play.onclick = () => this.toggle();
    const player = make("div", { className: "player" }, play, make("p", { className: "time" }));
    const names = this.rows.map((label) => {
      const name = make("p", { title: label, onclick: () => this.choose(label) }, label);
      if (label === entry.tag) name.className = "chosen";
      return name;
    });
    const wave = make("div", { className: "wave" }, make("canvas"), make("canvas", { className: "played" }));
    if (!entry.wave) wave.append(make("p", { className: "note" }, entry.unheard ?? "Drawing the waveform …"));
    const gram = make("canvas", { className: "gram" });
    gram.style.height = `${(this.rows.length || ROWS) * TALL}px`;
    if (!answer) gram.classList.add("waits");
    const over = make("div", { className: "hover", hidden: true }, make("p"));
    const track = make(
      "div",
      { className: "track", role: "slider", tabIndex: 0, "aria-label": "Position", "aria-valuemin": 0 },
      wave,
      gram,
      make("canvas", { className: "axis" }),
      make("div", { className: "head-line" }),
      over,
    );
    track.dataset.key = "track";
    this.listen(track, gram, over);
    return make("div", { className: "stage" }, make("div", { className: "names" }, player, ...names), track);
  }

  listen(track, gram, over) {
    const timeAt = (event) => {
      const box = track.getBoundingClientRect();
      return Math.max(0, Math.min(1, (event.clientX - box.left) / box.width)) * this.seconds;
    };
    track.onpointerdown = (event) => {
      if (event.button) return;
      track.setPointerCapture(event.pointerId);
      this.jump(timeAt(event));
    };
    track.onpointermove = (event) => {
      if (event.buttons & 1 && track.hasPointerCapture(event.pointerId)) this.jump(timeAt(event));
      const box = track.getBoundingClientRect();
      const time = timeAt(event);
      const label = this.rows[Math.floor((event.clientY - gram.getBoundingClientRect().top) / TALL)];
      const score = label && this.scoreAt(label, time);
      const text = $("p", over);
      text.textContent = score === undefined ? clock(time) : `${label} · ${clock(time)} · ${two(score)}`;
      over.hidden = false;
      over.style.left = `${event.clientX - box.left}px`;
      // At the right edge it would be cut.
      over.classList.toggle("left", event.clientX - box.left > box.width - 180);
      text.style.top = `${Math.max(0, event.clientY - box.top - 34)}px`;
    };
    track.onpointerleave = () => (over.hidden = true);
    track.onkeydown = (event) => {
      const step = this.step();
      const jumps = {
        ArrowLeft: this.at - step,
        ArrowDown: this.at - step,
        ArrowRight: this.at + step,
        ArrowUp: this.at + step,
        PageDown: this.at - JUMP,
        PageUp: this.at + JUMP,
        Home: 0,
        End: this.seconds,
      };
      if (event.altKey || event.ctrlKey || event.metaKey) return;
      if (event.key === " ") this.toggle();
      else if (event.key in jumps) this.jump(jumps[event.key]);
      else return;
      event.preventDefault();
    };
  }

  /** Seconds from a window to the next. */
  step() {
    const { times } = this.entry.answer ?? { times: [] };
    return times.length > 1 ? Math.max(0.1, times[1] - times[0]) : 1;
  }

  scoreAt(label, time) {
    const { answer } = this.entry;
    if (!answer) return undefined;
    const window = answer.times.findLastIndex((start) => start <= time);
    return answer.taggram[window]?.[answer.labels.indexOf(label)];
  }

  tags() {
    const { entry } = this;
    const { answer } = entry;
    const shown = Math.min(entry.shown ?? TAGS, answer.tags.length);
    const rows = answer.tags.slice(0, shown).map((tag) => {
      const mark = this.mark(tag.label);
      const on = applies(answer, tag, mark);
      const bar = make("span", { className: "bar" }, make("i"));
      bar.firstChild.style.width = `${Math.min(1, Math.max(0, tag.score)) * 100}%`;
      if (!Number.isNaN(mark) && !answer.decides_one) {
        const line = make("b", { title: `Threshold ${two(mark)}` });
        line.style.left = `${mark * 100}%`;
        bar.append(line);
      }
      const row = make(
        "button",
        { type: "button", className: on ? "tag on" : "tag", "aria-pressed": tag.label === entry.tag },
        make("span", { className: "name" }, tag.label),
        bar,
        make("span", { className: "score" }, two(tag.score)),
      );
      if (on) row.append(make("span", { className: "unseen" }, "applies"));
      row.dataset.key = `tag ${tag.label}`;
      row.onclick = () => this.choose(tag.label);
      return make("li", {}, row);
    });
    const known = answer.tags.some((tag) => !Number.isNaN(this.mark(tag.label)));
    const note = answer.decides_one
      ? "The model decides for one tag."
      : known
        ? "Filled bars apply: they reach the mark, the tag's threshold."
        : "The model has no thresholds.";
    const slider = make("input", { type: "range", min: 1, max: answer.tags.length, value: shown });
    slider.dataset.key = "shown";
    slider.oninput = () => {
      entry.shown = Number(slider.value);
      $(".tags", this.root).replaceWith(this.tags());
      $('[data-key="shown"]', this.root).focus();
    };
    const label = make("label", { className: "slider" }, make("span", {}, `${shown} of ${answer.tags.length}`), slider);
    slider.setAttribute("aria-label", "Tags shown");
    return make(
      "section",
      { className: "tags", "aria-label": "Tags" },
      make("div", { className: "head" }, make("h3", {}, "Tags"), label),
      make("p", { className: "note" }, note),
      make("ul", {}, ...rows),
    );
  }

  /** When the chosen tag applies. */
  segments() {
    const { entry } = this;
    const { answer, tag } = entry;
    const limit = this.limit(tag);
    const own = threshold(answer, tag);
    const found = stretches(answer, tag, limit);
    const total = found.reduce((sum, { start, end }) => sum + end - start, 0);
    const rows = found.map(({ start, end, score }) => {
      const row = make(
        "button",
        { type: "button", onclick: () => this.jump(start) },
        make("span", {}, `${clock(start)} – ${clock(end)}`),
        make("span", { className: "score" }, two(score)),
      );
      return make("li", {}, row);
    });
    const slider = make("input", { type: "range", min: 0.01, max: 0.99, step: 0.01, value: limit });
    slider.dataset.key = "limit";
    slider.setAttribute("aria-label", `Threshold of ${tag}`);
    slider.setAttribute("aria-valuetext", two(limit));
    slider.oninput = () => this.limitTo(Number(slider.value));
    const label = make("label", { className: "slider" }, make("span", {}, `Threshold ${two(limit)}`), slider);
    const reset = make("button", { type: "button", className: "plain", onclick: () => this.limitTo(null) });
    reset.textContent = Number.isNaN(own) ? `Back to ${two(DEFAULT_THRESHOLD)}` : `Back to the model's ${two(own)}`;
    reset.hidden = !entry.limits.has(tag);
    const note = found.length
      ? `${found.length === 1 ? "One stretch" : `${found.length} stretches`}, ${clock(total)} in all.`
      : "No window reaches the threshold.";
    const name = make("h3", {}, "When ", make("em", {}, tag), " applies");
    $(".segments", this.root).replaceChildren(
      make("div", { className: "head" }, name, label),
      make("p", { className: "note" }, note, " ", reset),
      make("ul", {}, ...rows),
    );
    $(".segments", this.root).setAttribute("aria-label", `When ${tag} applies`);
    this.marks = found.map(({ start, end }) => ({ row: this.rows.indexOf(tag), start, end }));
  }

  limitTo(value) {
    const { limits, tag } = this.entry;
    if (value === null) limits.delete(tag);
    else limits.set(tag, value);
    this.segments();
    $(".tags", this.root).replaceWith(this.tags());
    $('[data-key="limit"]', this.root).focus();
    this.draw();
  }

  choose(label) {
    this.entry.tag = label;
    this.build();
  }

  draw() {
    if (!this.entry || this.root.hidden || this.entry.state === "error") return;
    const { answer, wave } = this.entry;
    const seconds = this.seconds;
    if (wave) {
      const [base, played] = this.root.querySelectorAll(".wave canvas");
      drawWave(base, wave, seconds, "wave");
      drawWave(played, wave, seconds, "blue");
    }
    if (answer) {
      const rows = this.rows.map((label) => {
        const tag = answer.labels.indexOf(label);
        return answer.taggram.map((scores) => scores[tag]);
      });
      drawTaggram($(".gram", this.root), {
        times: answer.times,
        last: ends(answer).at(-1) ?? 0,
        rows,
        from: 0,
        to: seconds,
        tall: TALL,
        marks: this.marks,
      });
    }
    if (answer || wave) drawAxis($(".axis", this.root), seconds);
    this.place();
  }

  toggle() {
    if (this.entry.silent) return;
    if (this.audio.paused) this.audio.play().catch(() => {});
    else this.audio.pause();
  }

  jump(time) {
    this.at = Math.max(0, Math.min(this.seconds, time));
    if (!this.entry.silent) this.audio.currentTime = this.at;
    this.place();
  }

  playing() {
    const button = $(".play", this.root);
    if (!button) return;
    const on = !this.audio.paused;
    button.replaceChildren(icon(on ? PAUSE : PLAY));
    button.setAttribute("aria-label", on ? "Pause" : "Play");
    button.disabled = Boolean(this.entry.silent);
    button.title = this.entry.silent ? "This browser cannot play the file." : "";
  }

  /** Put the playhead where the sound is. */
  place() {
    const track = $(".track", this.root);
    if (!this.entry || !track) return;
    if (!this.entry.silent && !this.audio.seeking) this.at = this.audio.currentTime;
    const share = Math.min(1, this.at / this.seconds);
    $(".head-line", track).style.left = `${share * 100}%`;
    $(".played", track).style.clipPath = `inset(0 ${100 - share * 100}% 0 0)`;
    const text = `${clock(this.at)} / ${clock(this.seconds)}`;
    if ($(".time", this.root).textContent === text) return;
    $(".time", this.root).textContent = text;
    const score = this.entry.answer && this.scoreAt(this.entry.tag, this.at);
    track.setAttribute("aria-valuemax", Math.round(this.seconds));
    track.setAttribute("aria-valuenow", Math.round(this.at));
    const more = score === undefined || score === null ? "" : `, ${this.entry.tag} ${two(score)}`;
    track.setAttribute("aria-valuetext", `${clock(this.at)} of ${clock(this.seconds)}${more}`);
  }
}
