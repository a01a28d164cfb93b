// Dialogs: the browser's own, which keeps the focus inside and gives it back.

import { h, newId } from "./dom.js";

/**
 * Show a dialog. `build(close)` returns its content; `close(result)` ends it. Resolves with the result; undefined if it was left with
 * Escape, or the page was left. A dialog that is `needed` stays in both cases.
 */
export function openDialog(title, build, { needed = false } = {}) {
  return new Promise((resolve) => {
    const titleId = newId("dialog");
    let result;
    const close = (value) => {
      result = value;
      dialog.close();
    };
    // A question about a page must not be answered on another one.
    const leave = () => needed || close();
    addEventListener("hashchange", leave);
    const dialog = h(
      "dialog",
      {
        class: "dialog",
        "aria-labelledby": titleId,
        oncancel: (event) => needed && event.preventDefault(),
        onclose: () => {
          removeEventListener("hashchange", leave);
          dialog.remove();
          resolve(result);
        },
      },
      h("h2", { id: titleId }, title),
    );
    dialog.append(...[build(close)].flat());
    document.body.append(dialog);
    dialog.showModal();
  });
}

/**
 * Ask before something that cannot be undone. With `typed`, the person has to type that text. Resolves with whether it may be done.
 */
export async function confirm(title, { text, action, typed, dangerous = false }) {
  const answer = await openDialog(title, (close) => {
    const input = h("input", { id: newId("typed"), autocomplete: "off", spellcheck: "false", oninput: check });
    const button = h("button", { class: dangerous ? "danger" : "primary", type: "submit", disabled: typed !== undefined }, action);
    function check() {
      button.disabled = input.value.trim() !== typed;
    }
    return h(
      "form",
      {
        onsubmit: (event) => {
          event.preventDefault();
          close(true);
        },
      },
      [text].flat().map((paragraph) => h("p", {}, paragraph)),
      typed === undefined
        ? null
        : h("div", { class: "field" }, h("label", { for: input.id }, "Type ", h("strong", {}, typed), " to confirm"), input),
      h("div", { class: "actions" }, h("button", { type: "button", onclick: () => close(false) }, "Cancel"), button),
    );
  });
  return answer === true;
}
