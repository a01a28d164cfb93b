// The bar of pending corrections: says what will happen, then applies it, which is a retrain. A classifier that is not written by
// REST gets the manifest to commit instead.

import { h } from "../dom.js";
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
    this.element.hidden = this.pending.size === 0;
    this.text.textContent = `Not applied yet: ${describeCorrections(this.pending.toJson())}.`;
  }

  undo() {
    const step = this.pending.undo();
    this.announce(`Undone for ${step.images.length === 1 ? "1 image" : `${step.images.length} images`}.`);
  }

  discard() {
    this.pending.clear();
    this.announce("All pending corrections were discarded.");
  }

  // Asks the server what would happen. Nothing changes yet.
  async prepare() {
    const corrections = this.pending.toJson();
    this.nextButton.disabled = true;
    try {
      const answer = await this.api.post(this.path, { corrections, dry_run: true });
      this.effect.replaceChildren(...(this.classifier.writable ? this.confirmation(answer) : this.manifest(answer)));
      this.effect.querySelector("button, textarea")?.focus();
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
      this.nextButton.focus();
    });
    return [h("p", {}, answer.effect), h("p", { class: "actions" }, apply, cancel)];
  }

  manifest(answer) {
    const managedBy = this.classifier.managed_by ?? "another tool";
    const yaml = h("textarea", { readonly: "", rows: "12", "aria-label": "Manifest to commit", spellcheck: "false" });
    yaml.value = answer.manifest;
    const copy = button("Copy", async () => {
      yaml.select();
      try {
        await navigator.clipboard.writeText(yaml.value);
        this.announce("The manifest is in the clipboard.");
      } catch {
        this.announce("The browser does not allow copying here. The text is selected: copy it with Ctrl+C.");
      }
    });
    return [
      h("p", {}, `${managedBy} manages this classifier, so the console does not change it. Commit this. ${answer.effect}`),
      yaml,
      h("p", { class: "actions" }, copy),
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
    this.effect.replaceChildren(h("p", { class: "error", role: "alert" }, error.message));
    if (error.body?.manifest) {
      this.effect.append(...this.manifest({ manifest: error.body.manifest, effect: "" }));
    }
  }

  close() {
    this.stop();
  }
}
