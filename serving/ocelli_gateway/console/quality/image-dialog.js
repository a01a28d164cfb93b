// One opened image: its class next to the prediction, its judged scores named so, and next to them what is answered now, where the
// file itself is given. Only thumbnails are stored.

import { fill, h, newId } from "../dom.js";
import { digestBlob } from "../examples/checksum.js";
import { button } from "./button.js";
import { classifyImage } from "./classify.js";
import { nameOf } from "./numbers.js";
import { scoreBars } from "./score-bars.js";

export class ImageDialog {
  /**
   * `tools(item)` returns the nodes that correct one image, `onStep(item, by)` the next item to show, `onClose(item)` is called once it
   * is closed. `scoresOf(item)` returns judged scores by class, or undefined. `api`, `classifierId` and `threshold` are for the answer of now.
   */
  constructor({ api, classifierId, threshold, scoresOf, thumbnails, tools, onStep, onClose }) {
    Object.assign(this, { api, classifierId, threshold, scoresOf, thumbnails, tools, onStep, onClose });
    this.title = h("h2", { id: newId("image-title"), tabindex: "-1" });
    this.body = h("div", { class: "image-body" });
    this.element = h(
      "dialog",
      { class: "dialog large image-dialog", "aria-labelledby": this.title.id, onkeydown: (event) => this.onKey(event), onclose: () => this.onClosed() },
      h(
        "header",
        {},
        this.title,
        h(
          "p",
          { class: "actions" },
          button("Previous", () => this.step(-1)),
          button("Next", () => this.step(1)),
          button("Close", () => this.element.close()),
        ),
      ),
      this.body,
    );
    this.element.addEventListener("dragover", (event) => event.preventDefault());
    this.element.addEventListener("drop", (event) => this.onDrop(event));
  }

  open(item) {
    this.show(item);
    if (!this.element.open) {
      this.element.showModal();
    }
    this.title.focus();
  }

  show(item) {
    this.item = item;
    this.now = undefined;
    this.title.textContent = item.name ?? item.image;
    this.draw();
  }

  draw(message) {
    const { item, now } = this;
    const judged = this.scoresOf(item);
    const picture = h("img", { alt: "", class: "opened-thumbnail" });
    if (item.thumbnail !== false) {
      this.thumbnails.show(picture, item.image);
    }
    const facts = item.actual === undefined ? [] : [fact("Class", nameOf(item.actual))];
    if (item.facts) {
      facts.push(...item.facts.map(([term, value]) => fact(term, value)));
    } else if ("predicted" in item) {
      facts.push(fact("Predicted", nameOf(item.predicted)));
    }
    if (item.suggestion !== undefined) {
      facts.push(fact("Suggested", item.suggestion));
    }
    fill(
      this.body,
      h("div", { class: "image-side" }, picture, h("dl", { class: "fact-list" }, facts), this.tools(item)),
      h(
        "div",
        { class: "image-scores" },
        this.scores(judged, now),
        h("p", { class: "hint" }, describeScores(item, judged)),
        this.chooser(),
        h("p", { role: "status" }, message ?? ""),
      ),
    );
  }

  scores(judged, now) {
    if (!judged) {
      return now ? scoreBars({ title: "Now", scores: now.list, threshold: this.threshold }) : null;
    }
    const scores = Object.entries(judged).map(([name, score]) => ({ class: name, score }));
    const other = now && { title: "Now", scores: new Map(now.list.map((entry) => [entry.class, entry.score])) };
    return scoreBars({ title: "Judged", scores, threshold: this.threshold, other });
  }

  chooser() {
    const id = newId("now-file");
    const input = h("input", { type: "file", accept: "image/*", id, onchange: () => this.ask(input.files[0]) });
    return h(
      "p",
      { class: "drop-zone" },
      h("label", { for: id }, "Only the thumbnail is stored. To see what the service answers now, drop or choose the file: "),
      input,
    );
  }

  onDrop(event) {
    event.preventDefault();
    if (event.dataTransfer.files.length) {
      this.ask(event.dataTransfer.files[0]);
    }
  }

  async ask(file) {
    if (!file) {
      return;
    }
    const asked = this.item;
    this.draw("Asking the service…");
    try {
      const [same, list] = await Promise.all([
        digestBlob(file).then((digest) => digest === asked.image),
        classifyImage(this.api, { file, classifierId: this.classifierId }),
      ]);
      if (this.item === asked) {
        this.now = { list };
        this.draw(same ? "This is the same file." : `Note: ${file.name} is another file than this image.`);
      }
    } catch (error) {
      if (this.item === asked) {
        this.draw(error.message);
      }
    }
  }

  step(by) {
    const next = this.onStep(this.item, by);
    if (next) {
      this.show(next);
    }
  }

  onKey(event) {
    if (event.target instanceof HTMLInputElement || event.target instanceof HTMLSelectElement) {
      return;
    }
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (by) {
      event.preventDefault();
      this.step(by);
    }
  }

  onClosed() {
    this.onClose(this.item);
  }
}

function fact(term, value) {
  return [h("dt", {}, term), h("dd", {}, value)];
}

function describeScores(item, judged) {
  if (!judged) {
    return "";
  }
  const judges = item.test_set ? "by the served heads, which did not learn from the test set" : "by heads that did not learn from this image";
  return `Judged scores are given ${judges}. The score that the service returns now can differ.`;
}
