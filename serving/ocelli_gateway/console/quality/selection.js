// Which images of a grid are selected: by click, Shift and keyboard. Pure: it must not know the page.

/** Digests are shortened in the address. Those of one classifier differ in far fewer characters. */
const SHORT = 16;

export class Selection {
  constructor(chosen = []) {
    this.chosen = new Set(chosen);
    this.anchor = undefined;
  }

  static fromText(text) {
    return new Selection(text.split(".").filter((part) => /^[0-9a-f]{16}$/.test(part)));
  }

  /** For the address; also of images that no grid has shown yet. */
  toText() {
    return [...this.chosen].join(".");
  }

  get size() {
    return this.chosen.size;
  }

  has(image) {
    return this.chosen.has(shorten(image));
  }

  toggle(image) {
    if (!this.chosen.delete(shorten(image))) {
      this.chosen.add(shorten(image));
    }
    this.anchor = image;
  }

  /** Everything from the image that was toggled last up to this one, in the order of the grid. */
  extend(image, order) {
    const from = Math.max(order.indexOf(this.anchor ?? image), 0);
    const to = order.indexOf(image);
    this.all(order.slice(Math.min(from, to), Math.max(from, to) + 1));
  }

  all(images) {
    for (const image of images) this.chosen.add(shorten(image));
  }

  clear() {
    this.chosen.clear();
    this.anchor = undefined;
  }

  /** The selected images that the grid shows, in its order. */
  in(order) {
    return order.filter((image) => this.has(image));
  }
}

function shorten(digest) {
  return digest.slice(0, SHORT);
}
