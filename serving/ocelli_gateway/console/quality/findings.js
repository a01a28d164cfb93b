// What the data report found: images that a person should look at, by kind, each with what the report says of it.
// Pure but for the nodes of captions: it must not ask the server.

import { h } from "../dom.js";
import { nameOf } from "./numbers.js";

/** Kinds in the order of their tabs. `items(report)` makes the grid's items, of which `report` may hold only the first. */
export const FINDINGS = [
  {
    name: "suspected_label_errors",
    text: "Suspected label errors",
    explanation: "Images that probably belong to another class, the most probable first. Accept the suggestion, or leave them as they are.",
    suggestions: true,
    items: (report) => (report.suspected_label_errors ?? []).map(suspected),
  },
  {
    name: "conflicts",
    text: "Conflicts",
    explanation: "Near duplicates in different classes: one of the two has the wrong class, or the classes overlap.",
    items: (report) =>
      (report.conflicts ?? []).flatMap((pair) => [
        item(pair, `near duplicate of ${shortName(pair.near_duplicate_name)}, which is ${nameOf(pair.near_duplicate_class)}`),
        item(
          { image: pair.near_duplicate, name: pair.near_duplicate_name, class: pair.near_duplicate_class },
          `near duplicate of ${shortName(pair.name)}, which is ${nameOf(pair.class)}`,
        ),
      ]),
  },
  {
    name: "near_duplicates",
    text: "Near duplicates",
    explanation: "Images that are almost the same. They are judged together, and count once in the accuracy; dropping them is not needed.",
    items: (report) =>
      (report.near_duplicates ?? []).flatMap((pair) => [
        item({ image: pair.oldest, name: pair.oldest_name }, "the oldest of its near duplicates"),
        item(pair, `near duplicate of ${shortName(pair.oldest_name)}`),
      ]),
  },
  {
    name: "outliers",
    text: "Unlike their class",
    explanation: "Images that look unlike all others of their class. Some are mistakes, some are the rare examples that matter.",
    items: (report) => (report.outliers ?? []).map((found) => item(found, "unlike its class")),
  },
  {
    name: "small_images",
    text: "Small images",
    explanation: "Images with fewer pixels than the network sees. They are enlarged, which blurs them.",
    items: (report) => (report.small_images ?? []).map((found) => item(found, found.sides ? `${found.sides.join(" × ")} pixels` : "small")),
  },
];

/** How many were found; undefined if nothing was looked for. */
export function countOf(report, kind) {
  return report[`${kind.name}_count`];
}

export function caption(found) {
  // Near duplicates come without their class.
  const title = found.actual === undefined ? shortName(found.name) : nameOf(found.actual);
  return [h("span", { class: "actual" }, title), h("span", { class: "remark" }, found.remark)];
}

function suspected(found) {
  const suggestion = found.suggested_class ?? undefined;
  const [own, suggested] = [found.probability.toFixed(2), found.suggested_probability.toFixed(2)];
  const remark = `more like ${nameOf(found.suggested_class)} (${suggested}) than ${nameOf(found.class)} (${own})`;
  return { ...item(found, remark), suggestion };
}

function item(found, remark) {
  const { image, name, thumbnail } = found;
  return { image, name, thumbnail, actual: "class" in found ? found.class : undefined, remark };
}

/** Without the source, which all images of a class have in common. */
function shortName(name) {
  return (name ?? "another image").split(" › ").at(-1);
}
