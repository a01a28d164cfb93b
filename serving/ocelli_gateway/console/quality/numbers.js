// The numbers of an evaluation: the headline and the confusion matrix. It must not ask the server.

import { h } from "../dom.js";
import { count, percent } from "../format.js";
import { scrolling } from "./panel.js";

const MATRIX_CLASSES = 30;
const PAIRS_SHOWN = 200;
export const NONE = "-";
export const NONE_TEXT = "none of the classes";

export function nameOf(className) {
  return className ?? NONE_TEXT;
}

export function headline(evaluation) {
  const { accuracy, classes, protocol } = evaluation;
  // Not `evaluation.images`: those in the matrix are fewer where images were erased since.
  const { images } = accuracy;
  const sets = count(classes.length, "class", "classes") + (evaluation.has_negatives ? " and the negative examples" : "");
  const of =
    protocol === "TestSet"
      ? `on ${count(images, "image")} of the test set, from which nothing was learned`
      : `on ${count(images, "image")}, each judged by heads that did not learn from it`;
  const parts = [
    h("p", { class: "headline" }, h("strong", {}, percent(accuracy.value)), " accuracy"),
    h(
      "p",
      {},
      `Between ${percent(accuracy.lower)} and ${percent(accuracy.upper)} with 95 % confidence; balanced over ${sets}, ${of}.`,
    ),
  ];
  if (evaluation.excluded_images) {
    const left = count(evaluation.excluded_images, "image");
    parts.push(
      h("p", { class: "hint" }, `${left} of the test set left out: the same as an example, or a near duplicate of one.`),
    );
  }
  if (evaluation.calibration_error !== undefined) {
    const error = percent(evaluation.calibration_error);
    parts.push(h("p", { class: "hint" }, `On average, a score differs by ${error} from how often it is right.`));
  }
  return h("div", { class: "quality-headline" }, ...parts);
}

/** `address(actual, predicted)` gives the attributes of the link to exactly the images that the cell counts. */
export function confusion(evaluation, address) {
  return evaluation.classes.length <= MATRIX_CLASSES ? matrix(evaluation, address) : pairs(evaluation, address);
}

function matrix(evaluation, address) {
  const counts = new Map();
  for (const { actual, predicted, images } of evaluation.confusion) {
    counts.set(JSON.stringify([actual ?? null, predicted ?? null]), images);
  }
  const names = evaluation.classes.map((item) => item.class);
  if (evaluation.has_negatives) {
    names.push(null);
  }
  const heads = names.map((name) => h("th", { scope: "col" }, h("span", {}, nameOf(name))));
  const rows = names.map((actual) => {
    const total = names.reduce((sum, predicted) => sum + (counts.get(JSON.stringify([actual, predicted])) ?? 0), 0);
    const cells = names.map((predicted) => {
      const images = counts.get(JSON.stringify([actual, predicted])) ?? 0;
      return cell({ actual, predicted, images, total }, address);
    });
    return h("tr", {}, h("th", { scope: "row" }, nameOf(actual)), ...cells);
  });
  return scrolling(
    "Confusion matrix",
    h(
      "table",
      { class: "confusion" },
      h("caption", {}, "Rows are the actual class, columns the predicted one. A number opens the images it counts."),
      h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "Actual ↓ predicted →"), ...heads)),
      h("tbody", {}, ...rows),
    ),
  );
}

function cell({ actual, predicted, images, total }, address) {
  const right = actual === predicted;
  const node = h("td", { class: right ? "right" : images ? "wrong" : "zero" });
  if (images) {
    const label = describeCell({ actual, predicted, images });
    node.append(h("a", { ...address(actual, predicted), "aria-label": label }, String(images)));
    node.style.setProperty("--share", (images / total).toFixed(3));
  } else {
    node.append("0");
  }
  return node;
}

function describeCell({ actual, predicted, images }) {
  return `${count(images, "image")} of ${nameOf(actual)}, predicted ${nameOf(predicted)}`;
}

// Of many classes a matrix is unreadable: the wrong pairs, the most frequent first.
function pairs(evaluation, address) {
  const wrong = evaluation.confusion.filter((item) => (item.actual ?? null) !== (item.predicted ?? null));
  wrong.sort((a, b) => b.images - a.images);
  const rows = wrong
    .slice(0, PAIRS_SHOWN)
    .map(({ actual, predicted, images }) =>
      h(
        "tr",
        {},
        h("td", {}, nameOf(actual)),
        h("td", {}, nameOf(predicted)),
        h(
          "td",
          {},
          h("a", { ...address(actual ?? null, predicted ?? null), "aria-label": describeCell({ actual, predicted, images }) }, String(images)),
        ),
      ),
    );
  const shown = wrong.length > PAIRS_SHOWN ? ` The ${PAIRS_SHOWN} most frequent of ${wrong.length} pairs.` : "";
  return scrolling(
    "Confused classes",
    h(
      "table",
      { class: "pairs" },
      h("caption", {}, `Classes that were confused, the most frequent first.${shown}`),
      h("thead", {}, h("tr", {}, ...["Actual", "Predicted", "Images"].map((text) => h("th", { scope: "col" }, text)))),
      h("tbody", {}, ...rows),
    ),
  );
}
