// The foot of a page on which examples are chosen: what is missing, the button that sends them, and how far the sending is.

import { isAborted } from "../api.js";
import { fill, h } from "../dom.js";
import { bytes, count } from "../format.js";
import { errorNotice, notice } from "../notice.js";
import { buildHash } from "../router.js";
import { Sending } from "./sending.js";
import { buildSendingView } from "./sending-view.js";

export class SendingForm {
  /**
   * `action` is the text of the button. `problems()` returns what the page misses apart from the editor, in sentences; `send(sending, signal)`
   * sends everything and returns the address of the next page. The page calls `draw()` after each change.
   */
  constructor({ context, editor, action, problems = () => [], send }) {
    this._context = context;
    this._editor = editor;
    this._action = action;
    this._problems = problems;
    this._send = send;
    this._controller = undefined;
    this._isDone = false;
    this._isTried = false;
    this._problem = h("div", {});
    this._progress = h("div", {});
    this._ready = h("div", { class: "muted", role: "status" });
    this._button = h("button", { type: "button", class: "primary", onclick: () => this._run() }, action);
    this._foot = h("div", { class: "card foot" }, this._ready, h("div", { class: "actions" }, this._button));
    this.elements = [this._problem, this._progress, this._foot];
    context.onLeave(() => this._question());
  }

  draw() {
    const reasons = this._reasons();
    const isSending = this._controller !== undefined;
    this._button.disabled = reasons.length > 0 || isSending;
    this._foot.hidden = this._editor.sets.isEmpty || isSending;
    const text = reasons.length === 0 ? this._summary() : `${reasons[0]}${reasons.length > 1 ? ` And ${reasons.length - 1} more.` : ""}`;
    if (this._ready.textContent !== text) fill(this._ready, text);
  }

  close() {
    this._controller?.abort();
  }

  /** Why nothing can be sent yet. */
  _reasons() {
    const { sets } = this._editor;
    if (sets.isEmpty) return ["Drop images first."];
    if (sets.isChecking) return ["The images are being checked."];
    return [...this._editor.problems(), ...this._problems()];
  }

  _summary() {
    const { sets } = this._editor;
    return `Ready: ${count(sets.images, "image")}, ${bytes(sets.bytes)}.${this._isTried ? "" : " Nothing has been sent yet."}`;
  }

  /** What to ask before the page is left. */
  _question() {
    if (this._isDone || (this._editor.sets.isEmpty && this._controller === undefined)) return false;
    return this._controller === undefined
      ? "The images that you chose are not sent yet."
      : "Images are being sent. What is already stored is kept for an hour: drop the same folders again to send the rest.";
  }

  async _run() {
    if (this._controller !== undefined) return;
    this._controller = new AbortController();
    this._isTried = true;
    const { signal } = this._controller;
    const view = buildSendingView({ onTryNow: () => sending.tryNow(), onStop: () => this._controller?.abort() });
    const sending = new Sending(this._context.api, signal, (state) => view.draw(state));
    this._editor.locked = this._foot.hidden = true;
    fill(this._problem);
    fill(this._progress, view.element);
    view.focus();
    try {
      const next = await this._send(sending, signal);
      this._isDone = true;
      this._context.go(next);
    } catch (error) {
      // An aborted page has nothing to show any more.
      if (!this._context.signal.aborted) fill(this._problem, isAborted(error) ? this._stopped() : this._refused(error));
    } finally {
      this._controller = undefined;
      view.close();
      fill(this._progress);
      this._editor.locked = false;
      this.draw();
      if (!this._isDone) {
        this._button.focus({ preventScroll: true });
        // The foot stays in the window, and may hide what went wrong.
        this._problem.scrollIntoView({ block: "center" });
      }
    }
  }

  _refused(error) {
    const kept = "Everything that you chose stays on this page, and what is already stored is kept for an hour.";
    if (!error.isQuota) return errorNotice(error, () => this._run(), kept);
    // Leaving this page would lose what was chosen.
    const list = h("a", { href: buildHash(["classifiers"]), target: "_blank", rel: "noopener" }, "Open the classifiers in another tab");
    return errorNotice(error, () => this._run(), kept, " ", list, " to delete one, then try again here.");
  }

  _stopped() {
    return notice("info", `Stopped. What is already stored is kept for an hour: press “${this._action}” again to send only the rest.`);
  }
}
