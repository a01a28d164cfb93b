// Parts of the pages of quality: sections with a title, and tables that may be wider than the window.

import { h } from "../dom.js";

export function panel(title, ...children) {
  return h("section", { class: "panel" }, h("h2", {}, title), ...children);
}

/** A wide table scrolls by itself, also with the keyboard. */
export function scrolling(label, table) {
  return h("div", { class: "scrolling", tabindex: "0", role: "region", "aria-label": label }, table);
}
