// Changes of one classifier by a button. They are made one at a time: the button locks at once, and the outcome is announced.

import { isAborted } from "./api.js";
import { fill, h } from "./dom.js";
import { manifestNotice } from "./manifest.js";
import { errorNotice } from "./notice.js";

export class ClassifierChanges {
  /** `problem` is the element for refusals. */
  constructor(context, id) {
    this._context = context;
    this._path = `/ocelli/v1/classifiers/${encodeURIComponent(id)}`;
    this._isBusy = false;
    this.problem = h("div", {});
  }

  /** A button that makes a change: `action` is the end of its address, `said` is announced once it is made. */
  button(text, { action, said, body = {}, ...attributes }) {
    return h("button", { type: "button", ...attributes, onclick: (event) => this.make(event.currentTarget, { action, said, body }) }, text);
  }

  async make(pressed, { action, said, body = {} }) {
    // Another press would change nothing, or something that was drawn before this change.
    if (this._isBusy) return;
    const { api, signal, announce, update } = this._context;
    this._isBusy = pressed.disabled = true;
    fill(this.problem);
    try {
      const details = await api.post(`${this._path}/${action}`, body, { signal });
      announce(said);
      pressed.disabled = false;
      update(details);
    } catch (error) {
      if (isAborted(error)) return;
      pressed.disabled = false;
      pressed.focus();
      fill(this.problem, manifestNotice(error) ?? errorNotice(error));
    } finally {
      this._isBusy = false;
    }
  }
}
