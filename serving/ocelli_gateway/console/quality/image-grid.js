// A grid of images that are selected by click, Shift and keyboard, and opened with Enter or a double click.
// It must not know what is done with them.

import { h, newId } from "../dom.js";

export class ImageGrid {
  // `caption(item)` returns the nodes below the thumbnail; `badge(item)` a short text for a correction, or undefined.
  // `onSelect()` and `onOpen(item)` are called for what the person does.
  constructor({ label, thumbnails, selection, caption, badge, onSelect, onOpen }) {
    Object.assign(this, { thumbnails, selection, caption, badge, onSelect, onOpen });
    this.items = [];
    this.tiles = new Map();
    const keysId = newId("grid-keys");
    this.list = h("ul", {
      class: "image-grid",
      role: "listbox",
      "aria-multiselectable": "true",
      "aria-label": label,
      "aria-describedby": keysId,
    });
    this.list.addEventListener("click", (event) => this.onClick(event));
    this.list.addEventListener("dblclick", (event) => this.onDoubleClick(event));
    this.list.addEventListener("keydown", (event) => this.onKey(event));
    this.keys = h(
      "p",
      { class: "hint", id: keysId },
      "Click or Space selects, Shift extends, Ctrl+A selects all, Enter or a double click opens.",
    );
  }

  get order() {
    return this.items.map((item) => item.image);
  }

  add(items) {
    const fragment = document.createDocumentFragment();
    for (const item of items) {
      if (!this.tiles.has(item.image)) {
        this.items.push(item);
        fragment.append(this.buildTile(item));
      }
    }
    this.list.append(fragment);
    this.refresh();
  }

  buildTile(item) {
    // The caption says what the image is; its name alone would be noise.
    const image = h("img", { alt: "", decoding: "async", width: "128", height: "128" });
    const frame = h("span", { class: "thumbnail-frame" }, image);
    const tile = h(
      "li",
      { role: "option", class: "tile", tabindex: "-1", "aria-selected": "false", title: item.name ?? item.image },
      frame,
      h("span", { class: "tile-open", "aria-hidden": "true", title: "Open" }, "⤢"),
      h("span", { class: "tile-caption" }, ...this.caption(item)),
      h("span", { class: "tile-badge" }),
    );
    tile.dataset.image = item.image;
    this.tiles.set(item.image, tile);
    if (item.thumbnail === false) {
      image.dataset.missing = "true";
    } else {
      this.thumbnails.show(image, item.image);
    }
    return tile;
  }

  // After the selection or the corrections have changed.
  refresh() {
    let first;
    for (const item of this.items) {
      const tile = this.tiles.get(item.image);
      tile.setAttribute("aria-selected", String(this.selection.has(item.image)));
      const text = this.badge(item);
      const badge = tile.querySelector(".tile-badge");
      if (badge.textContent !== (text ?? "")) {
        badge.textContent = text ?? "";
      }
      first ??= tile;
    }
    if (first && !this.list.querySelector('[tabindex="0"]')) {
      first.tabIndex = 0;
    }
  }

  focus(image) {
    const tile = this.tiles.get(image);
    if (tile) {
      this.list.querySelector('[tabindex="0"]')?.setAttribute("tabindex", "-1");
      tile.tabIndex = 0;
      tile.focus();
    }
  }

  itemOf(node) {
    const tile = node.closest("[data-image]");
    return tile ? this.items.find((item) => item.image === tile.dataset.image) : undefined;
  }

  onClick(event) {
    const item = this.itemOf(event.target);
    if (!item) {
      return;
    }
    this.focus(item.image);
    if (event.target.closest(".tile-open")) {
      this.onOpen(item);
    } else {
      this.choose(item, event.shiftKey);
    }
  }

  onDoubleClick(event) {
    const item = this.itemOf(event.target);
    // Its two clicks have selected and deselected.
    if (item && !event.target.closest(".tile-open")) {
      this.onOpen(item);
    }
  }

  choose(item, extend) {
    if (extend) {
      this.selection.extend(item.image, this.order);
    } else {
      this.selection.toggle(item.image);
    }
    this.refresh();
    this.onSelect();
  }

  onKey(event) {
    const item = this.itemOf(event.target);
    if (!item) {
      return;
    }
    const position = this.items.indexOf(item);
    const target = { ArrowRight: position + 1, ArrowLeft: position - 1, Home: 0, End: this.items.length - 1 }[event.key];
    const row = { ArrowDown: this.columns, ArrowUp: -this.columns }[event.key];
    const next = this.items[target ?? (row === undefined ? -1 : position + row)];
    if (next) {
      this.focus(next.image);
      if (event.shiftKey) {
        this.selection.anchor ??= item.image;
        this.selection.extend(next.image, this.order);
        this.refresh();
        this.onSelect();
      }
    } else if (event.key === " ") {
      this.choose(item, event.shiftKey);
    } else if (event.key === "Enter") {
      this.onOpen(item);
    } else if (event.key === "a" && (event.ctrlKey || event.metaKey)) {
      this.selection.all(this.order);
      this.refresh();
      this.onSelect();
    } else if (event.key === "Escape" && this.selection.size) {
      this.selection.clear();
      this.refresh();
      this.onSelect();
    } else if (!["ArrowRight", "ArrowLeft", "ArrowUp", "ArrowDown"].includes(event.key)) {
      return;
    }
    event.preventDefault();
  }

  get columns() {
    return getComputedStyle(this.list).gridTemplateColumns.split(" ").length;
  }
}
