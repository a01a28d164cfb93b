// What can be done with the selected images of a grid: open, move to a class, drop, reset, undo.

import { h } from "../dom.js";
import { count } from "../format.js";
import { button } from "./button.js";
import { DROP, NO_CORRECTION } from "./corrections.js";

const BUTTON_CLASSES = 8;

export class CorrectionTools {
  /**
   * `chosen()` returns the selected items, `onOpen(item)` opens one, `onClear()` clears the selection, `onDone(text)` is called after
   * a change. `single`: for one opened image. `suggestions`: items may have one.
   */
  constructor({ classes, pending, chosen, single = false, suggestions = false, onOpen, onClear, onDone }) {
    Object.assign(this, { pending, chosen, onDone });
    this.count = h("span", { class: "selected-count" });
    this.takeBackButton = button("Reset", () => this.takeBack(), {
      title: "Remove the corrections of the selected images, pending and applied ones",
    });
    this.suggestedButton = suggestions ? button("Accept suggestion", () => this.acceptSuggestions()) : null;
    this.element = h(
      "div",
      { class: "correction-tools", role: "group", "aria-label": single ? "Correct this image" : "Selected images" },
      single ? null : this.count,
      single ? null : button("Open", () => onOpen(this.chosen()[0])),
      this.suggestedButton,
      this.moves(classes),
      button("Drop", () => this.correct(DROP, "dropped"), { title: "Learn without these images" }),
      this.takeBackButton,
      single ? null : button("Clear selection", onClear),
    );
    this.show();
  }

  /** One click where the classes are few, a list where they are many. */
  moves(classes) {
    if (classes.length <= BUTTON_CLASSES) {
      return classes.map((name) => button(`Move to ${name}`, () => this.correct(name, `moved to ${name}`)));
    }
    const select = h("select", { "aria-label": "Class to move to" }, ...classes.map((name) => new Option(name, name)));
    return [select, button("Move", () => this.correct(select.value, `moved to ${select.value}`))];
  }

  correct(className, what) {
    const images = this.chosen().map((item) => item.image);
    this.pending.add(images, className);
    this.onDone(`${count(images.length, "image")} ${what}; not applied yet.`);
  }

  takeBack() {
    const items = this.chosen().filter((item) => item.correction !== undefined || this.pending.of(item.image) !== undefined);
    this.pending.add(
      items.map((item) => item.image),
      NO_CORRECTION,
    );
    this.onDone(`The correction of ${count(items.length, "image")} is removed; not applied yet.`);
  }

  acceptSuggestions() {
    const byClass = Map.groupBy(
      this.chosen().filter((item) => item.suggestion !== undefined),
      (item) => item.suggestion,
    );
    byClass.forEach((items, className) =>
      this.pending.add(
        items.map((item) => item.image),
        className,
      ),
    );
    this.onDone("The suggestion is chosen; not applied yet.");
  }

  /** The tools are always there: tiles must not move between the two clicks that open one. */
  show() {
    const items = this.chosen();
    this.element.classList.toggle("empty", items.length === 0);
    this.count.textContent = items.length === 0 ? "Nothing selected" : `${items.length} selected`;
    for (const control of this.element.querySelectorAll("button, select")) {
      control.disabled = items.length === 0;
    }
    this.takeBackButton.disabled = !items.some((item) => item.correction !== undefined || this.pending.of(item.image) !== undefined);
    if (this.suggestedButton) {
      this.suggestedButton.disabled = !items.some((item) => item.suggestion !== undefined);
    }
  }
}
