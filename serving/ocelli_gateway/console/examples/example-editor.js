// Choosing examples: the place to drop them, and the sets with their counts and problems. Nothing is sent from here.

import { fill, h, icon, newId } from "../dom.js";
import { bytes, count } from "../format.js";
import { notice } from "../notice.js";
import { readChosen, readDrop } from "./dropped-files.js";
import { ExampleSets } from "./example-sets.js";

const SHOWN_IMAGES = 8;
const SHOWN_NAMES = 5;
const REDRAW_MS = 100;

export class ExampleEditor {
  /** `known`: names of classes that the classifier has already. `onChange()` follows each change. */
  constructor({ signal, announce, known = [], onChange }) {
    this._signal = signal;
    this._announce = announce;
    this._known = known;
    this._onChange = onChange;
    this._cards = new Map();
    this._previews = new Map();
    this._timer = undefined;
    this._locked = false;
    this.sets = new ExampleSets(() => this._later());
    this._list = h("div", { class: "cards" });
    this._facts = h("div", {});
    this._drop = this._buildDrop();
    this.element = h("div", { class: "examples" }, this._drop, this._facts, this._list);
  }

  /** Why nothing can be sent yet, in sentences; empty where everything is fine. */
  problems() {
    return this.sets.sets.flatMap((set) => this.sets.problemsOf(set, this._known).map((problem) => `${titleOf(set)}: ${problem}`));
  }

  /** While examples are sent, nothing can be changed. */
  set locked(locked) {
    this._locked = locked;
    this._drop.hidden = locked;
    for (const control of this._list.querySelectorAll("input, button")) control.disabled = locked;
  }

  close() {
    clearTimeout(this._timer);
    for (const address of this._previews.values()) URL.revokeObjectURL(address);
  }

  async add(reading) {
    try {
      const dropped = await reading;
      if (dropped.sets.length === 0) {
        this.sets.notices.push(...(dropped.notices.length > 0 ? dropped.notices : ["There is no file in what you dropped."]));
        return this._draw();
      }
      await this.sets.add(dropped, this._signal);
      this._announce(`${count(this.sets.images, "image")} in ${count(this.sets.sets.length, "set")}.`);
    } catch (error) {
      this.sets.notices.push(`This cannot be read: ${error.message}. Try again, or choose the files instead of dropping them.`);
      this._draw();
    }
  }

  _buildDrop() {
    const folder = h("input", { type: "file", webkitdirectory: true, multiple: true, hidden: true, tabindex: "-1", onchange: choose });
    const files = h("input", { type: "file", multiple: true, accept: ".zip,image/jpeg,image/png", hidden: true, tabindex: "-1", onchange: choose });
    const self = this;
    function choose(event) {
      self.add(readChosen([...event.target.files]));
      event.target.value = "";
    }
    const over = (on) => (event) => {
      event.preventDefault();
      zone.classList.toggle("over", on);
    };
    const zone = h(
      "div",
      {
        class: "drop",
        ondragenter: over(true),
        ondragover: over(true),
        ondragleave: over(false),
        ondrop: (event) => {
          over(false)(event);
          if (!self._locked) self.add(readDrop(event.dataTransfer.items));
        },
      },
      h("div", { class: "drop-mark" }, icon("images")),
      h("p", { class: "drop-title" }, "Drop folders or zips of images here"),
      h("p", { class: "muted" }, "One folder or zip for each class; its name becomes the class. Several at once, or a folder of folders."),
      h(
        "p",
        { class: "muted" },
        "Put images of none of the classes, such as empty streets for cars, into a folder named ",
        h("i", {}, "negatives"),
        ": they teach the classifier when no class fits.",
      ),
      h(
        "div",
        { class: "actions" },
        h("button", { type: "button", onclick: () => folder.click() }, icon("folder"), "Choose a folder"),
        h("button", { type: "button", onclick: () => files.click() }, "Choose zips or images"),
      ),
      folder,
      files,
    );
    return zone;
  }

  _later() {
    this._timer ??= setTimeout(() => {
      this._timer = undefined;
      this._draw();
    }, REDRAW_MS);
  }

  _draw() {
    const { sets } = this;
    const conflicts = sets.conflicts();
    fill(
      this._facts,
      sets.isChecking
        ? h(
            "div",
            { class: "checking" },
            h("span", {}, `Checking image ${sets.checked + 1} of ${sets.toCheck}…`),
            h("progress", { max: sets.toCheck, value: sets.checked, "aria-label": "Images checked" }),
          )
        : null,
      sets.notices.map((text) => notice("warning", text)),
      conflicts.length > 0 ? conflictNotice(conflicts) : null,
    );
    const keys = new Set(sets.sets.map((set) => set.key));
    for (const [key, card] of this._cards) if (!keys.has(key)) (card.element.remove(), this._cards.delete(key));
    for (const set of sets.sets) {
      if (!this._cards.has(set.key)) {
        const card = this._buildCard(set);
        this._cards.set(set.key, card);
        this._list.append(card.element);
      }
      this._cards.get(set.key).draw();
    }
    this._onChange();
  }

  /** The card of a set. Its field stays the same element, so that typing is not interrupted. */
  _buildCard(set) {
    const { sets } = this;
    const input = h("input", { id: newId("class"), value: set.name, autocomplete: "off", oninput: () => sets.rename(set.key, input.value) });
    const toggle = h("input", {
      type: "checkbox",
      id: newId("negative"),
      checked: set.negative,
      onchange: () => sets.setNegative(set.key, toggle.checked),
    });
    const nameField = h("div", { class: "field" }, h("label", { for: input.id }, "Class"), input);
    const negativeTitle = h("h2", {}, "Negative examples");
    const numbers = h("p", { class: "set-count" });
    const faults = h("div", {});
    const previews = h("div", { class: "previews", "aria-hidden": "true" });
    const left = h("div", {});
    const element = h(
      "div",
      { class: "card set" },
      h(
        "button",
        { type: "button", class: "plain icon-button set-remove", "aria-label": "Remove this set", onclick: () => sets.remove(set.key) },
        icon("close"),
      ),
      nameField,
      negativeTitle,
      numbers,
      previews,
      faults,
      left,
      h("label", { class: "check", for: toggle.id }, toggle, "These are negative examples"),
    );
    const draw = () => {
      nameField.hidden = set.negative;
      negativeTitle.hidden = !set.negative;
      const size = set.images.reduce((sum, image) => sum + image.bytes, 0);
      fill(numbers, h("strong", {}, count(set.images.length, "image")), ` · ${bytes(size)}`);
      fill(faults, sets.problemsOf(set, this._known).map((problem) => h("p", { class: "fault" }, icon("warning"), problem)));
      fill(left, leftOut(set));
      this._drawPreviews(previews, set);
    };
    return { element, draw };
  }

  _drawPreviews(container, set) {
    const images = set.images.slice(0, SHOWN_IMAGES);
    for (const image of images.slice(container.childElementCount)) {
      const picture = h("img", { alt: "", loading: "lazy", decoding: "async" });
      container.append(picture);
      image.content().then((blob) => {
        // The type is fixed: a page that calls itself an image is not run.
        const address = URL.createObjectURL(new Blob([blob], { type: "image/png" }));
        this._previews.set(image, address);
        picture.src = address;
      });
    }
  }
}

function leftOut(set) {
  return [
    names(set.unusable, (files) => `${count(files.length, "file")} cannot be used`, (file) => `${file.name} ${file.reason}`),
    names(set.duplicates, (files) => `${count(files.length, "duplicate")} left out`, (file) => `${file.name} is the same image as another`),
  ];
}

function names(files, title, line) {
  if (files.length === 0) return null;
  const shown = files.slice(0, SHOWN_NAMES).map((file) => h("li", {}, line(file)));
  const more = files.length - shown.length;
  return h(
    "details",
    { class: "left-out" },
    h("summary", {}, title(files)),
    h("ul", {}, shown, more > 0 ? h("li", {}, `and ${more} more`) : null),
  );
}

function conflictNotice(conflicts) {
  const lines = conflicts
    .slice(0, SHOWN_NAMES)
    .map((found) => h("li", {}, found.map(({ set, image }) => `${image.name} (${titleOf(set)})`).join(" is the same image as ")));
  const more = conflicts.length - lines.length;
  return notice("warning", [
    h("p", {}, `${count(conflicts.length, "image")} ${conflicts.length === 1 ? "is" : "are"} in several sets; only one of them can be right.`),
    h("ul", {}, lines, more > 0 ? h("li", {}, `and ${more} more`) : null),
  ]);
}

function titleOf(set) {
  return set.negative ? "Negative examples" : set.name.trim() || "Class without a name";
}
