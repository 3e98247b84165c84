// Draws on canvases. Colours come from the style sheet, which knows light and dark.

import { clock } from "./dom.js";

const HEAT = ["--heat-0", "--heat-1", "--heat-2"];
let known = null;

/** Forget colours: the scheme has changed. */
export function forget() {
  known = null;
}

function colours() {
  if (known) return known;
  const style = getComputedStyle(document.documentElement);
  const value = (name) => style.getPropertyValue(name).trim();
  const stops = HEAT.map((name) => value(name).match(/[\da-f]{2}/gi).map((part) => parseInt(part, 16)));
  known = { ...Object.fromEntries(["blue", "orange", "quiet", "wave", "grid"].map((n) => [n, value(`--${n}`)])) };
  known.heat = Array.from({ length: 101 }, (_, i) => {
    const at = (i / 100) * 2;
    const [low, high] = [stops[Math.min(1, Math.floor(at))], stops[Math.min(1, Math.floor(at)) + 1]];
    const share = at - Math.min(1, Math.floor(at));
    return `rgb(${low.map((from, c) => Math.round(from + (high[c] - from) * share))})`;
  });
  return known;
}

// Low scores would hardly be seen by their own numbers; the taggram of `tagger predict` does the same.
const heat = (score) => colours().heat[Math.round(Math.max(0, Math.min(1, score)) ** 0.7 * 100)];

/** Fit a canvas to its place on the screen, pixel by pixel, and empty it. */
function fit(canvas) {
  const ratio = window.devicePixelRatio || 1;
  const { clientWidth: width, clientHeight: height } = canvas;
  canvas.width = Math.max(1, Math.round(width * ratio));
  canvas.height = Math.max(1, Math.round(height * ratio));
  const pen = canvas.getContext("2d");
  pen.scale(ratio, ratio);
  return { pen, width, height };
}

/** Waveform: bars around the middle. */
export function drawWave(canvas, wave, seconds, colour) {
  const { pen, width, height } = fit(canvas);
  pen.fillStyle = colours()[colour];
  const bars = Math.floor(width / 3);
  const loudest = wave.peaks.reduce((a, b) => Math.max(a, b), 1e-4);
  for (let bar = 0; bar < bars; bar++) {
    const scale = ((seconds / wave.seconds) * wave.peaks.length) / bars;
    const from = Math.floor(bar * scale);
    const to = Math.max(from + 1, Math.floor((bar + 1) * scale));
    let peak = 0;
    for (let i = from; i < to && i < wave.peaks.length; i++) peak = Math.max(peak, wave.peaks[i]);
    const tall = Math.max(2, (peak / loudest) * (height - 4));
    pen.beginPath();
    pen.roundRect(bar * 3, (height - tall) / 2, 2, tall, 1);
    pen.fill();
  }
}

/** Taggram: a row per tag. A cell lasts from the start of its window to that of the next. */
export function drawTaggram(canvas, { times, rows, last, from, to, tall, marks = [] }) {
  const { pen, width } = fit(canvas);
  const scale = width / (to - from);
  const x = (time) => (time - from) * scale;
  // Cells narrower than a pixel would be seen or not by chance: a pixel shows the highest of them.
  const columns = [];
  for (let window = 0; window < times.length; window++) {
    const left = Math.max(0, x(times[window]));
    const right = Math.min(width, x(times[window + 1] ?? last));
    if (right <= 0 || left >= width) continue;
    const before = columns.at(-1);
    if (before && right - before.left < 1) {
      before.windows.push(window);
      before.right = right;
    } else columns.push({ left, right, windows: [window] });
  }
  const gap = columns.length * 8 < width ? 1 : 0;
  rows.forEach((scores, row) => {
    for (const { left, right, windows } of columns) {
      pen.fillStyle = heat(Math.max(...windows.map((window) => scores[window])));
      // Without gaps, cells overlap a little, or seams would be seen between them.
      pen.fillRect(left, row * tall + 1, Math.max(0.5, right - left - gap + (gap ? 0 : 0.6)), tall - 2);
    }
  });
  pen.fillStyle = colours().orange;
  for (const { row, start, end } of marks) {
    pen.fillRect(x(start), (row + 1) * tall - 4, Math.max(2, (end - start) * scale - gap), 3);
  }
}

const STEPS = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 28800];

/** Time axis: marks at round times. */
export function drawAxis(canvas, seconds) {
  const { pen, width } = fit(canvas);
  const { quiet, grid } = colours();
  const step = STEPS.find((each) => seconds / each <= Math.max(2, width / 70)) ?? 86400;
  pen.font = `12px ${getComputedStyle(document.body).fontFamily}`;
  for (let at = 0; at <= seconds; at += step) {
    const x = (at / seconds) * width;
    const text = clock(at);
    const wide = pen.measureText(text).width;
    if (x + 4 + wide > width && at) break;
    pen.fillStyle = grid;
    pen.fillRect(Math.round(x), 0, 1, 16);
    pen.fillStyle = quiet;
    pen.fillText(text, x + 5, 14);
  }
}

/** Ornament of the empty page: a taggram of nothing in particular, the same each time. */
export function drawMotif(canvas) {
  const rows = Array.from({ length: 6 }, (_, row) =>
    Array.from({ length: 40 }, (_, at) => {
      const wave = Math.sin(at * (0.22 + row * 0.07) + row * 2.1) * Math.sin(at * 0.09 + row * 1.3);
      return Math.max(0.02, wave) * (1 - row * 0.08);
    }),
  );
  const times = rows[0].map((_, at) => at);
  drawTaggram(canvas, { times, rows, last: 40, from: 0, to: 40, tall: 14 });
}
