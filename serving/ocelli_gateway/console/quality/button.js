// A button with a text. Nothing else.

import { h } from "../dom.js";

/** `onClick` is called with the event. */
export function button(text, onClick, attributes = {}) {
  return h("button", { type: "button", onclick: onClick, ...attributes }, text);
}
