// The bar of pending corrections: says what will happen, then applies it, which is a retrain. A classifier that is not written by
// REST gets the manifest to commit instead.

import { copyBlock } from "../copy.js";
import { h } from "../dom.js";
import { count } from "../format.js";
import { button } from "./button.js";
import { describeCorrections } from "./corrections.js";

export class CorrectionsBar {
  // `classifier`: {classifier_id, writable}. `onApplied(answer)` after the server has accepted them.
  constructor({ api, classifier, pending, announce, onApplied }) {
    Object.assign(this, { api, classifier, pending, announce, onApplied });
    this.path = `/ocelli/v1/classifiers/${encodeURIComponent(classifier.classifier_id)}/corrections`;
    this.text = h("p", { class: "pending-text" });
    this.undoButton = button("Undo", () => this.undo());
    this.discardButton = button("Discard all", () => this.discard());
    this.nextButton = button(classifier.writable ? "Apply and retrain…" : "Show the YAML…", () => this.prepare(), { class: "primary" });
    this.effect = h("div", { class: "pending-effect" });
    this.element = h(
      "section",
      { class: "corrections-bar", "aria-label": "Pending corrections" },
      this.text,
      h("p", { class: "actions" }, this.undoButton, this.discardButton, this.nextButton),
      this.effect,
    );
    this.stop = pending.listen(() => this.show());
    this.show();
  }

  show() {
    this.effect.replaceChildren();
    this.nextButton.hidden = false;
    this.element.hidden = this.pending.size === 0;
    this.text.textContent = `Not applied yet: ${describeCorrections(this.pending.toJson())}.`;
  }

  undo() {
    const step = this.pending.undo();
    this.announce(`Undone for ${count(step.images.length, "image")}.`);
  }

  discard() {
    this.pending.clear();
    this.announce("All pending corrections are discarded.");
  }

  // Asks the server what would happen. Nothing changes yet.
  async prepare() {
    const corrections = this.pending.toJson();
    this.nextButton.disabled = true;
    try {
      const answer = await this.api.post(this.path, { corrections, dry_run: true });
      this.effect.replaceChildren(...(this.classifier.writable ? this.confirmation(answer) : this.manifest(answer)));
      // One next step at a time.
      this.nextButton.hidden = this.classifier.writable;
      this.effect.querySelector("button, pre")?.focus();
      this.announce(answer.effect);
    } catch (error) {
      this.refuse(error);
    } finally {
      this.nextButton.disabled = false;
    }
  }

  confirmation(answer) {
    const apply = button("Apply and retrain", () => this.apply(apply), { class: "primary" });
    const cancel = button("Not yet", () => {
      this.effect.replaceChildren();
      this.nextButton.hidden = false;
      this.nextButton.focus();
    });
    return [h("p", {}, answer.effect), h("p", { class: "actions" }, apply, cancel)];
  }

  manifest(answer) {
    const managedBy = this.classifier.managed_by ?? "another tool";
    return [
      h("p", {}, `${managedBy} manages this classifier, so the console does not change it. Commit this manifest instead. ${answer.effect}`),
      copyBlock("Manifest to commit", answer.manifest),
    ];
  }

  async apply(apply) {
    // Locked at once: a second press would be a second request.
    apply.disabled = true;
    try {
      const answer = await this.api.post(this.path, { corrections: this.pending.toJson(), dry_run: false });
      this.pending.clear();
      this.onApplied(answer);
    } catch (error) {
      apply.disabled = false;
      this.refuse(error);
    }
  }

  // The corrections stay: nothing that was chosen is lost.
  refuse(error) {
    this.nextButton.hidden = false;
    this.effect.replaceChildren(h("p", { class: "error", role: "alert" }, error.message));
    if (error.body?.manifest) {
      this.effect.append(...this.manifest({ manifest: error.body.manifest, effect: "" }));
    }
  }

  close() {
    this.stop();
  }
}
