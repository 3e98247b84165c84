// What an answer says: which tags apply, and when. The same rules as `tagger predict`.

export const DEFAULT_THRESHOLD = 0.5;
const TOUCHING = 1e-3; // seconds that rounding may put between windows

/** Threshold of a tag; NaN where the model has none. */
export function threshold(answer, label) {
  const own = answer.thresholds?.[answer.labels.indexOf(label)];
  return own ?? NaN;
}

/** Whether a tag applies to the whole file. */
export function applies(answer, tag, limit = threshold(answer, tag.label)) {
  return answer.decides_one ? tag.label === answer.tags[0]?.label : tag.score >= limit;
}

/** End of each window; the last ones may reach beyond the sound, and are cut. */
export function ends(answer) {
  const last = (answer.times[0] ?? 0) + answer.seconds;
  return answer.times.map((time) => Math.max(time, Math.min(time + answer.window_seconds, last)));
}

/** Stretches in which a tag applies: neighbouring windows at or above its threshold. */
export function stretches(answer, label, limit) {
  const tag = answer.labels.indexOf(label);
  const until = ends(answer);
  const found = [];
  let open = null;
  answer.taggram.forEach((scores, window) => {
    if (scores[tag] < limit) {
      open = null;
      return;
    }
    const start = answer.times[window];
    const touches = open && start <= answer.times[window - 1] + answer.window_seconds + TOUCHING;
    if (!touches) {
      open = { label, start, end: 0, score: 0, windows: 0 };
      found.push(open);
    }
    open.end = until[window];
    open.score += scores[tag];
    open.windows += 1;
  });
  return found.map(({ windows, ...stretch }) => ({ ...stretch, score: stretch.score / windows }));
}

/** Stretches of all tags, by their start. */
export function allStretches(answer, limitOf) {
  return answer.tags
    .flatMap((tag) => stretches(answer, tag.label, limitOf(tag.label)))
    .sort((a, b) => a.start - b.start || b.score - a.score);
}
