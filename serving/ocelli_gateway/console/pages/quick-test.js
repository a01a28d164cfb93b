// The quick test: images by drop, paste, address or camera, and what the service answers for them, to the last digit.

import { fill, h, newId } from "../dom.js";
import { count } from "../format.js";
import { notice } from "../notice.js";
import { button } from "../quality/button.js";
import { Camera } from "../quality/camera.js";
import { ClassifiedImage } from "../quality/classified-image.js";
import { panel } from "../quality/panel.js";
import { chooseThreshold } from "../quality/threshold.js";

const CONCURRENT = 2;
const DEFAULT = "default";

export async function show(container, context, classifierId) {
  const test = new QuickTest(context, classifierId);
  fill(container, context.classifier.served_revision ? null : test.notServed(), test.element);
  return () => test.close();
}

class QuickTest {
  constructor(context, classifierId) {
    this.context = context;
    this.classifierId = classifierId;
    this.images = [];
    this.waiting = [];
    this.active = 0;
    this.threshold = chooseThreshold(context.query, context.classifier);
    this.hasDefault = (context.session.facts?.built_ins ?? []).includes(DEFAULT) && classifierId !== DEFAULT;
    this.asksDefault = this.hasDefault && context.query.get("default") !== "no";
    this.camera = new Camera({ onImage: (file) => this.add([{ file }]), announce: context.announce });
    this.problem = h("div", { role: "status" });
    this.results = h("div", { class: "classified-grid" });
    this.onPaste = (event) => this.paste(event);
    document.addEventListener("paste", this.onPaste);
    this.element = h(
      "div",
      { class: "quick-test", ondragover: (event) => event.preventDefault(), ondrop: (event) => this.drop(event) },
      panel("Images to try", this.inputs(), this.camera.element, this.problem),
      this.options(),
      this.results,
    );
  }

  notServed() {
    return notice("info", "No revision is served yet, so this classifier cannot answer. The page “Training” shows how far the training is.");
  }

  inputs() {
    const fileId = newId("files");
    const urlId = newId("url");
    const files = h("input", {
      type: "file",
      id: fileId,
      multiple: true,
      accept: "image/*,.zip",
      onchange: () => {
        this.addFiles([...files.files]);
        files.value = "";
      },
    });
    const url = h("input", { type: "url", id: urlId, placeholder: "https://…", required: true });
    return [
      h("p", { class: "drop-zone" }, h("label", { for: fileId }, "Drop images here, paste one (Ctrl+V), or choose files: "), files),
      h(
        "form",
        {
          class: "field-line",
          onsubmit: (event) => {
            event.preventDefault();
            this.add([{ url: url.value }]);
            url.value = "";
          },
        },
        h("label", { for: urlId }, "Address of an image"),
        url,
        h("button", { type: "submit" }, "Classify"),
        button("Use the camera", () => this.camera.start()),
      ),
    ];
  }

  options() {
    const thresholdId = newId("threshold");
    const defaultId = newId("default");
    const output = h("output", { for: thresholdId }, this.threshold.toFixed(2));
    const slider = h("input", {
      type: "range",
      id: thresholdId,
      min: 0,
      max: 1,
      step: 0.01,
      oninput: () => {
        this.threshold = Number(slider.value);
        output.textContent = this.threshold.toFixed(2);
        this.images.forEach((image) => image.setThreshold(this.threshold));
      },
      onchange: () => this.context.setQuery({ threshold: this.threshold }),
    });
    slider.value = String(this.threshold);
    const box = h("input", {
      type: "checkbox",
      id: defaultId,
      checked: this.asksDefault,
      onchange: () => {
        this.asksDefault = box.checked;
        this.context.setQuery({ default: this.asksDefault ? undefined : "no" });
      },
    });
    return h(
      "div",
      { class: "panel test-options" },
      h("p", { class: "slider" }, h("label", { for: thresholdId }, "Threshold"), slider, output),
      this.hasDefault
        ? h("p", { class: "field-line" }, box, h("label", { for: defaultId }, "Also ask the built-in classifier “default”"))
        : null,
      h(
        "p",
        { class: "hint" },
        "These are served scores, each digit as the API sends it. Images that the classifier learned from score higher than new ones: " +
          "try images that it has never seen. Judged scores are on the page “Quality”.",
      ),
    );
  }

  drop(event) {
    event.preventDefault();
    const items = [...event.dataTransfer.items].filter((item) => item.kind === "file");
    const folders = items.filter((item) => item.webkitGetAsEntry?.()?.isDirectory);
    this.addFiles(items.filter((item) => !folders.includes(item)).map((item) => item.getAsFile()));
    if (folders.length > 0) {
      this.report("Folders are not read here. Drop the images in them, or a zip.");
    }
  }

  paste(event) {
    const files = [...(event.clipboardData?.files ?? [])];
    if (files.length > 0) {
      event.preventDefault();
      this.addFiles(files);
    }
  }

  addFiles(files) {
    fill(this.problem);
    this.add(files.filter(Boolean).map((file) => ({ file })));
  }

  report(text) {
    fill(this.problem, notice("warning", text));
  }

  /** The newest images come first. */
  add(sources) {
    const classifierIds = this.asksDefault ? [this.classifierId, DEFAULT] : [this.classifierId];
    const { api, signal, announce } = this.context;
    const added = sources.map((source) => new ClassifiedImage({ api, source, classifierIds, threshold: this.threshold, signal }));
    this.images.unshift(...added);
    this.waiting.push(...added);
    this.results.prepend(...added.map((image) => image.element));
    if (added.length > 0) {
      announce(`${count(added.length, "image is", "images are")} being classified.`);
    }
    this.work();
  }

  /** A few at a time: the service refuses users that ask for too many at once. */
  work() {
    while (this.active < CONCURRENT && this.waiting.length > 0) {
      this.active += 1;
      this.waiting
        .shift()
        .ask()
        .finally(() => {
          this.active -= 1;
          if (this.active === 0 && this.waiting.length === 0 && !this.context.signal.aborted) {
            this.context.announce("All images are classified.");
          }
          this.work();
        });
    }
  }

  close() {
    document.removeEventListener("paste", this.onPaste);
    this.waiting = [];
    this.camera.stop();
    this.images.forEach((image) => image.close());
  }
}
