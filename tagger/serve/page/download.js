// Answers as files.

import { make } from "./dom.js";
import { allStretches } from "./segments.js";

const cell = (text) => (/[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
const number = (value) => String(Number(value.toFixed(6)));

export const FORMATS = {
  JSON: {
    suffix: ".json",
    type: "application/json",
    write: (answer) => `${JSON.stringify(answer)}\n`,
  },
  // Lines without start and end are of the whole file.
  CSV: {
    suffix: ".csv",
    type: "text/csv",
    write: (answer, limitOf) =>
      [
        "tag,score,start,end",
        ...answer.tags.map((tag) => `${cell(tag.label)},${number(tag.score)},,`),
        ...allStretches(answer, limitOf).map((stretch) =>
          [cell(stretch.label), ...[stretch.score, stretch.start, stretch.end].map(number)].join(","),
        ),
      ].join("\r\n") + "\r\n",
  },
  "Audacity labels": {
    suffix: ".txt",
    type: "text/plain",
    write: (answer, limitOf) =>
      allStretches(answer, limitOf)
        // Tabs and ends of lines part the fields.
        .map(({ start, end, label }) => `${start.toFixed(6)}\t${end.toFixed(6)}\t${label.replace(/\s+/g, " ")}\n`)
        .join(""),
  },
};

export function download(name, format, answer, limitOf) {
  const { suffix, type, write } = FORMATS[format];
  const url = URL.createObjectURL(new Blob([write(answer, limitOf)], { type }));
  make("a", { href: url, download: name.replace(/\.[^.]*$/, "") + suffix }).click();
  // Some browsers read it only after the click.
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}
