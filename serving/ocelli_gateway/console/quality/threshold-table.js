// The table of the classes, with a slider that shows how precision and recall move with the threshold.

import { h } from "../dom.js";
import { percent } from "../format.js";
import { scrolling } from "./panel.js";
import { ThresholdCurves } from "./threshold.js";

const EVALUATED_AT = 0.5;

export class ThresholdTable {
  // `threshold` is what the classifier answers with; `onChange(threshold)` after the slider has moved.
  constructor({ evaluation, threshold, onChange }) {
    this.evaluation = evaluation;
    this.threshold = threshold;
    this.onChange = onChange;
    this.slider = h("input", { type: "range", id: "threshold", min: "0", max: "1", step: "0.01", disabled: true });
    this.slider.value = String(threshold);
    this.output = h("output", { for: "threshold" }, "");
    this.note = h("p", { class: "hint" }, "Reading the judged scores…");
    this.body = h("tbody", {});
    this.slider.addEventListener("input", () => this.onInput());
    this.element = h(
      "div",
      { class: "threshold-table" },
      h("p", { class: "slider" }, h("label", { for: "threshold" }, "Threshold"), this.slider, this.output),
      this.note,
      scrolling("Classes", this.buildTable()),
    );
    this.show();
  }

  buildTable() {
    const heads = ["Class", "Images", "Precision", "Recall", "F1"].map((text, column) =>
      h("th", { scope: "col", class: column > 0 ? "number" : undefined }, text),
    );
    return h("table", { class: "classes" }, h("thead", {}, h("tr", {}, ...heads)), this.body);
  }

  // The judged scores have come.
  accept(scores) {
    this.curves = new ThresholdCurves(scores);
    this.positions = new Map(scores.classes.map((name, position) => [name, position]));
    this.slider.disabled = false;
    const sample = scores.sampled ? ` Computed from a sample of ${this.curves.images} images.` : "";
    this.note.textContent =
      "An image gets each class whose score reaches the threshold. Precision: how many of the images that get a class are of that class. " +
      `Recall: how many of the images of a class get it.${sample}`;
    this.show();
  }

  refuse(message) {
    this.note.textContent = `The threshold cannot be moved: ${message}`;
  }

  onInput() {
    this.threshold = Number(this.slider.value);
    this.show();
    clearTimeout(this.pause);
    // Not each step: browsers limit how often the address may change.
    this.pause = setTimeout(() => this.onChange(this.threshold), 300);
  }

  show() {
    const shown = this.curves ? this.threshold : EVALUATED_AT;
    this.output.textContent = shown.toFixed(2);
    this.body.replaceChildren(...this.evaluation.classes.map((item) => this.row(item, shown)));
  }

  row(item, threshold) {
    const { precision, recall } = this.curves ? this.curves.at(this.positions.get(item.class), threshold) : item;
    const f1 = precision && recall ? (2 * precision * recall) / (precision + recall) : 0;
    const cells = [percent(precision), percent(recall), percent(f1)].map((text) => h("td", { class: "number" }, text));
    return h(
      "tr",
      {},
      h("th", { scope: "row" }, item.class),
      h("td", { class: "number" }, String(item.images)),
      ...cells,
    );
  }
}
