// The findings of a data report as tabs with their counts; the chosen one is part of the address.

import { fill, h } from "../dom.js";
import { count } from "../format.js";
import { FINDINGS, caption, countOf } from "./findings.js";
import { ImageReview } from "./review.js";

export class FindingTabs {
  /** `page` is a CorrectedPage. */
  constructor(page, report) {
    this.page = page;
    this.report = report;
    this.tabs = h("div", { class: "segments finding-tabs", role: "group", "aria-label": "Kind of images" });
    this.body = h("div", {});
    const kinds = FINDINGS.filter((kind) => countOf(report, kind));
    const asked = page.context.query.get("found");
    this.kind = kinds.find((kind) => kind.name === asked) ?? kinds[0];
    this.kinds = kinds;
    this.element = h("div", {}, kinds.length ? [this.tabs, this.body] : h("p", {}, this.nothing()));
    if (this.kind) {
      this.draw();
    }
  }

  nothing() {
    return countOf(this.report, FINDINGS[0]) === undefined
      ? "There are too few images to look for suspicious ones."
      : "Nothing was found: no suspected label errors, conflicts, near duplicates, outliers or small images.";
  }

  choose(kind) {
    this.kind = kind;
    this.page.context.setQuery({ found: kind.name, found_image: undefined });
    this.draw();
    this.tabs.querySelector('[aria-pressed="true"]').focus();
  }

  draw() {
    fill(
      this.tabs,
      this.kinds.map((kind) =>
        h(
          "button",
          { type: "button", "aria-pressed": String(kind === this.kind), onclick: () => this.choose(kind) },
          `${kind.text} (${countOf(this.report, kind)})`,
        ),
      ),
    );
    this.review?.close();
    this.review = new ImageReview({
      page: this.page,
      label: this.kind.text,
      caption,
      prefix: "found_",
      suggestions: this.kind.suggestions,
    });
    const items = this.kind.items(this.report);
    const corrections = new Map(this.page.context.classifier.corrections?.map((item) => [item.image, item.class]));
    fill(this.body, h("p", { class: "hint" }, `${this.kind.explanation}${this.limit(items)}`), this.review.element);
    this.review.add(items.map((item) => (corrections.has(item.image) ? { ...item, correction: corrections.get(item.image) } : item)));
  }

  limit() {
    const listed = (this.report[this.kind.name] ?? []).length;
    const found = countOf(this.report, this.kind);
    return found > listed ? ` The first ${count(listed, "entry", "entries")} of ${found}.` : "";
  }

  close() {
    this.review?.close();
  }
}
