// Images to look at and to correct: a grid, the tools for those that are selected, and the dialog of the opened one.
// What is selected and opened is part of the address. It must not know where the images come from.

import { h } from "../dom.js";
import { parseHash } from "../router.js";
import { button } from "./button.js";
import { DROP, NO_CORRECTION } from "./corrections.js";
import { CorrectionTools } from "./correction-tools.js";
import { ImageDialog } from "./image-dialog.js";
import { ImageGrid } from "./image-grid.js";
import { Selection } from "./selection.js";

export class ImageReview {
  /**
   * `page` is a CorrectedPage; `caption(item)` returns the nodes of a tile.
   * `prefix` of the names in the address, where a page has several; `suggestions`: items may have one.
   * Items: {image, name, actual, predicted, scores, thumbnail, correction, suggestion}; all but `image` may be absent.
   */
  constructor({ page, label, caption, prefix = "", suggestions = false }) {
    const { thumbnails, pending } = page;
    Object.assign(this, { page: page.context, classifier: page.context.classifier, pending, suggestions });
    this.names = { selected: `${prefix}selected`, image: `${prefix}image` };
    this.selection = Selection.fromText(this.addressed(this.names.selected) ?? "");
    this.grid = new ImageGrid({
      label,
      thumbnails,
      selection: this.selection,
      caption,
      badge: (item) => describeBadge(this.pending.of(item.image), item.correction),
      onSelect: () => this.onSelect(),
      onOpen: (item) => this.open(item),
    });
    this.tools = this.buildTools(() => this.chosen());
    this.dialog = new ImageDialog({
      api: page.context.api,
      classifierId: this.classifier.classifier_id,
      threshold: this.classifier.threshold,
      scoresOf: (item) => item.scores ?? page.judgedScores(item.image),
      thumbnails,
      tools: (item) => this.buildTools(() => [item], true).element,
      onStep: (item, by) => this.step(item, by),
      onClose: (item) => this.onClose(item),
    });
    this.element = h("div", { class: "review" }, this.grid.keys, this.tools.element, this.grid.list, this.dialog.element);
    this.stop = pending.listen(() => this.refresh());
  }

  add(items) {
    this.grid.add(items);
    this.tools.show();
    const opened = this.addressed(this.names.image);
    const item = items.find((candidate) => candidate.image === opened);
    if (item && !this.dialog.element.open) {
      this.open(item);
    }
  }

  /** A value of the address as it is now. */
  addressed(name) {
    return parseHash(location.hash)?.query.get(name) ?? undefined;
  }

  chosen() {
    const chosen = new Set(this.selection.in(this.grid.order));
    return this.grid.items.filter((item) => chosen.has(item.image));
  }

  buildTools(chosen, single = false) {
    return new CorrectionTools({
      classes: this.classifier.classes.map((item) => item.class),
      pending: this.pending,
      chosen,
      single,
      suggestions: this.suggestions,
      onOpen: (item) => this.open(item),
      onClear: () => this.clear(),
      onDone: (text) => this.page.announce(text),
    });
  }

  open(item) {
    this.page.setQuery({ [this.names.image]: item.image });
    this.dialog.open(item);
  }

  step(item, by) {
    const next = this.grid.items[this.grid.items.indexOf(item) + by];
    if (next) {
      this.page.setQuery({ [this.names.image]: next.image });
    }
    return next;
  }

  onClose(item) {
    this.page.setQuery({ [this.names.image]: undefined });
    this.grid.focus(item.image);
  }

  clear() {
    const first = this.chosen()[0];
    this.selection.clear();
    this.grid.refresh();
    this.onSelect();
    // The toolbar with the pressed button goes: the focus must not.
    this.grid.focus(first?.image);
  }

  onSelect() {
    this.tools.show();
    this.page.setQuery({ [this.names.selected]: this.selection.toText() });
  }

  refresh() {
    this.grid.refresh();
    this.tools.show();
    if (this.dialog.element.open) {
      this.dialog.draw();
    }
  }

  close() {
    this.stop();
    this.dialog.element.close();
  }
}

function describeBadge(pending, applied) {
  if (pending !== undefined) {
    const text = pending === NO_CORRECTION ? "no correction" : pending === DROP ? "dropped" : `→ ${pending}`;
    return `${text} (not applied)`;
  }
  if (applied !== undefined) {
    return applied === DROP ? "dropped" : `→ ${applied}`;
  }
  return undefined;
}

/** A button that asks for the next images, and presses itself when it comes near the window. */
export class MoreButton {
  constructor(load) {
    this.load = load;
    this.element = button("Show more images", () => this.press(), { class: "more" });
    this.observer = new IntersectionObserver((entries) => entries.some((entry) => entry.isIntersecting) && this.press(), {
      rootMargin: "800px",
    });
    this.observer.observe(this.element);
  }

  async press() {
    if (this.element.disabled || this.element.hidden) {
      return;
    }
    this.element.disabled = true;
    try {
      this.element.hidden = !(await this.load());
    } finally {
      this.element.disabled = false;
    }
    // An observer reports changes only: the button may be near the window still.
    this.observer.unobserve(this.element);
    if (!this.element.hidden) {
      this.observer.observe(this.element);
    }
  }

  close() {
    this.observer.disconnect();
  }
}
