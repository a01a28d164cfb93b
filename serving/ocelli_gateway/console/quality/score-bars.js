// Scores as bars with the threshold, the highest first. The number of each is printed as the server sent it.

import { h } from "../dom.js";

// `scores`: [{class, score}], a number or an ExactNumber each. `other`: {title, scores: Map of class → score}, shown next to them.
export function scoreBars({ title, scores, threshold, other }) {
  const sorted = [...scores].sort((a, b) => b.score - a.score);
  const columns = [h("th", { scope: "col" }, "Class"), h("th", { scope: "col" }, title)];
  if (other) {
    columns.push(h("th", { scope: "col" }, other.title));
  }
  return h(
    "table",
    { class: "score-bars" },
    h("thead", {}, h("tr", {}, ...columns)),
    h("tbody", {}, ...sorted.map((entry) => row(entry, threshold, other))),
  );
}

function row(entry, threshold, other) {
  const below = entry.score < threshold;
  const cells = [
    h("th", { scope: "row" }, entry.class),
    h("td", {}, bar(entry.score, threshold), h("span", { class: "digits" }, String(entry.score))),
  ];
  if (other) {
    const score = other.scores.get(entry.class);
    const shown = score === undefined ? ["not known"] : [bar(score, threshold), h("span", { class: "digits" }, String(score))];
    cells.push(h("td", {}, ...shown));
  }
  return h("tr", { class: below ? "below-threshold" : "" }, ...cells);
}

// The number stands next to it: nothing is lost for those who do not see it.
function bar(score, threshold) {
  const fill = h("span", { class: "fill" });
  fill.style.width = `${100 * score}%`;
  const mark = h("span", { class: "threshold-mark" });
  mark.style.left = `${100 * threshold}%`;
  return h("span", { class: "bar", "aria-hidden": "true" }, fill, mark);
}
