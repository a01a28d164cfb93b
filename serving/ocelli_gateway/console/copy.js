// Texts to copy: commands, programs and manifests.

import { fill, h, icon } from "./dom.js";

const SAID_MS = 2000;

/** A block of text with a button that copies it. `label` names it for screen readers. */
export function copyBlock(label, text) {
  const code = h("pre", { tabindex: "0", role: "region", "aria-label": label }, h("code", {}, text));
  return h("div", { class: "copy-block" }, code, copyButton(label, text, code));
}

/** A button that copies a text. Where the browser does not allow it, `source` is selected instead. */
export function copyButton(label, text, source) {
  const button = h("button", { type: "button", class: "small", "aria-label": `Copy: ${label}`, onclick: copy });
  say("Copy", "copy");
  return button;

  function say(word, symbol) {
    fill(button, icon(symbol), h("span", { "aria-live": "polite" }, word));
  }

  async function copy() {
    try {
      await navigator.clipboard.writeText(text);
      say("Copied", "check");
    } catch {
      // Only secure contexts may write to the clipboard.
      if (source !== undefined) getSelection().selectAllChildren(source);
      say("Press Ctrl+C", "copy");
    }
    setTimeout(() => say("Copy", "copy"), SAID_MS);
  }
}
