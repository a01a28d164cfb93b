// One image of the quick test with its scores: of the classifier, and of the built-in `default` next to it.

import { fill, h } from "../dom.js";
import { errorNotice } from "../notice.js";
import { askClassify, describeMissing } from "./classify.js";
import { scoreBars } from "./score-bars.js";

const SHOWN = 5;

export class ClassifiedImage {
  /** `source`: {file} or {url}. `classifierIds`: the classifier, and perhaps a built-in one. */
  constructor({ api, source, classifierIds, threshold, signal }) {
    Object.assign(this, { api, source, classifierIds, threshold, signal });
    this.address = source.file && URL.createObjectURL(source.file);
    this.result = h("div", { class: "classified-scores" });
    this.name = source.file?.name ?? source.url;
    // The console asks no other host: an image by URL is fetched by the service only.
    const shown = this.address
      ? h("img", { alt: "", src: this.address })
      : h("p", { class: "hint" }, "Fetched by the service; the console itself asks no other host.");
    this.element = h(
      "article",
      { class: "classified panel", "aria-label": this.name },
      h("h3", {}, this.name),
      h("div", { class: "classified-image" }, shown),
      this.result,
    );
  }

  async ask() {
    fill(this.result, h("p", { class: "hint" }, "Classifying…"));
    try {
      this.answer = await askClassify(this.api, { ...this.source, classifierIds: this.classifierIds, signal: this.signal });
      this.show();
    } catch (error) {
      if (!this.signal.aborted) {
        fill(
          this.result,
          errorNotice(error, () => this.ask()),
        );
      }
    }
  }

  /** Show the answer again with another threshold. */
  setThreshold(threshold) {
    this.threshold = threshold;
    if (this.answer) {
      this.show();
    }
  }

  show() {
    // A zip has several images, of which only the names are at hand.
    const images = this.answer.images;
    const warnings = (this.answer.warnings ?? []).map((warning) => h("p", { class: "hint" }, warning.description));
    fill(
      this.result,
      warnings,
      images.map((image) => [images.length > 1 ? h("h4", {}, image.image) : null, this.scores(image)]),
    );
  }

  scores(image) {
    if (image.error) {
      return h("p", { class: "error" }, image.error.description);
    }
    if (image.classifiers.length === 0 && !this.answer.warnings) {
      return h("p", { class: "error" }, describeMissing(this.answer));
    }
    return image.classifiers.map((classifier) => this.classifierScores(classifier));
  }

  classifierScores({ classifier_id: id, name, classes }) {
    const own = id === this.classifierIds[0];
    const sorted = [...classes].sort((a, b) => b.score - a.score);
    const returned = sorted.filter((item) => item.score >= this.threshold);
    const first = own ? Math.max(SHOWN, returned.length) : SHOWN;
    const rest = sorted.slice(first);
    const bars = (scores) => scoreBars({ title: "Score", scores, threshold: this.threshold });
    return h(
      "div",
      { class: "classifier-scores" },
      h("h4", {}, own ? name : `Built-in: ${name}`),
      own ? h("p", { class: "returned" }, describeReturned(returned, this.threshold)) : null,
      bars(sorted.slice(0, first)),
      own && rest.length > 0 ? h("details", {}, h("summary", {}, `${rest.length} more`), bars(rest)) : null,
    );
  }

  close() {
    if (this.address) {
      URL.revokeObjectURL(this.address);
    }
  }
}

function describeReturned(returned, threshold) {
  const names = returned.map((item) => item.class).join(", ");
  return `With the threshold ${threshold.toFixed(2)} the API returns ${names || "no class"}.`;
}
