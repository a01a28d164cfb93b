// The judged images of a revision, filtered and sorted as the address says; the filters are those that the confusion matrix counts by.

import { fill, h, newId } from "../dom.js";
import { count } from "../format.js";
import { errorNotice } from "../notice.js";
import { isAborted } from "../api.js";
import { buildHash, parseHash } from "../router.js";
import { button } from "./button.js";
import { NONE, NONE_TEXT, nameOf } from "./numbers.js";
import { ImageReview, MoreButton } from "./review.js";

const SORTS = { most_wrong: "Most wrong first", least_sure: "Least sure first", class: "By class" };
const FILTERS = ["actual", "predicted", "wrong", "sort"];

export class JudgedImages {
  /** `page` is a CorrectedPage. */
  constructor(page, evaluation) {
    this.page = page;
    this.context = page.context;
    this.evaluation = evaluation;
    this.filter = Object.fromEntries(FILTERS.map((name) => [name, this.context.query.get(name) ?? undefined]));
    this.title = h("h2", { tabindex: "-1" }, "Judged images");
    this.summary = h("p", { role: "status", class: "summary" });
    this.controls = h("form", { class: "filters", "aria-label": "Filter of the images", onsubmit: (event) => event.preventDefault() });
    this.list = h("div", {});
    this.element = h("section", { class: "panel", id: "judged-images" }, this.title, this.controls, this.summary, this.list);
  }

  start() {
    this.drawControls();
    this.read();
  }

  /** What a cell of the confusion matrix needs: the address of its images, and the listener that shows them here. */
  cell(actual, predicted) {
    const filter = { ...this.filter, actual: actual ?? NONE, predicted: predicted ?? NONE, wrong: undefined };
    const { segments, query } = parseHash(location.hash);
    return {
      href: buildHash(segments, { ...Object.fromEntries(query), ...filter, selected: undefined, image: undefined }),
      onclick: (event) => {
        if (event.ctrlKey || event.metaKey || event.shiftKey) {
          return;
        }
        event.preventDefault();
        this.change({ actual: actual ?? NONE, predicted: predicted ?? NONE, wrong: undefined });
        this.drawControls();
        this.title.scrollIntoView({ block: "start" });
        this.title.focus({ preventScroll: true });
      },
    };
  }

  drawControls() {
    const names = this.evaluation.classes.map((item) => item.class);
    // Without negatives an image always has a class, and is always predicted as one.
    const options = [["", "any"], ...names.map((name) => [name, name])];
    if (this.evaluation.has_negatives) {
      options.push([NONE, NONE_TEXT]);
    }
    const wrongId = newId("wrong");
    fill(
      this.controls,
      this.select("Class", "actual", options),
      this.select("Predicted", "predicted", options),
      h(
        "span",
        { class: "field-line" },
        h("input", {
          type: "checkbox",
          id: wrongId,
          checked: this.filter.wrong === "true",
          onchange: (event) => this.change({ wrong: event.target.checked ? "true" : undefined }),
        }),
        h("label", { for: wrongId }, "Only wrong ones"),
      ),
      this.select("Order", "sort", Object.entries(SORTS)),
      button("Show all", () => {
        this.change({ actual: undefined, predicted: undefined, wrong: undefined });
        this.drawControls();
      }),
    );
  }

  select(label, name, options) {
    const id = newId(name);
    const chosen = this.filter[name] ?? options[0][0];
    return h(
      "span",
      { class: "field-line" },
      h("label", { for: id }, label),
      h(
        "select",
        { id, onchange: (event) => this.change({ [name]: event.target.value || undefined }) },
        options.map(([value, text]) => h("option", { value, selected: value === chosen }, text)),
      ),
    );
  }

  change(changes) {
    Object.assign(this.filter, changes);
    this.context.setQuery({ ...changes, image: undefined });
    this.read();
  }

  /** Read the first images again. */
  read() {
    this.review?.close();
    this.more?.close();
    const review = new ImageReview({
      page: this.page,
      label: "Judged images",
      caption,
    });
    this.review = review;
    this.more = new MoreButton(() => this.readMore(review));
    fill(this.list, review.element, this.more.element);
    this.summary.textContent = "Reading the images…";
    this.more.press();
  }

  /** Whether there are more. */
  async readMore(review) {
    try {
      const { total, images } = await this.page.revision.images(this.filter, review.grid.items.length);
      if (review !== this.review) {
        return false;
      }
      review.add(images);
      const shown = review.grid.items.length;
      this.summary.textContent = total === 0 ? "No image matches this filter." : `${count(shown, "image")} of ${total} shown.`;
      this.total = total;
      return images.length > 0 && shown < total;
    } catch (error) {
      if (!isAborted(error) && review === this.review) {
        fill(this.summary, errorNotice(error, () => this.read()));
      }
      return false;
    }
  }

  close() {
    this.review?.close();
    this.more?.close();
  }
}

/** Class next to prediction, with the judged score of the prediction. */
function caption(item) {
  const right = item.actual === item.predicted;
  const scores = Object.entries(item.scores ?? {});
  const highest = scores.reduce((best, entry) => (entry[1] > best[1] ? entry : best), ["", -1]);
  return [
    h("span", { class: "actual" }, nameOf(item.actual)),
    h(
      "span",
      { class: right ? "predicted right" : "predicted wrong" },
      right ? "✓ " : "✗ ",
      h("span", { class: "hidden-text" }, right ? "predicted right: " : "predicted wrong: "),
      nameOf(item.predicted),
    ),
    h("span", { class: "judged-score" }, highest[0] === "" ? "" : `judged ${highest[1].toFixed(3)}${item.predicted === null ? ` ${highest[0]}` : ""}`),
  ];
}
