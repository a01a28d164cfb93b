// Using a classifier from programs: its address, and commands and programs that run as they are.

import { SERVICE } from "../api.js";
import { copyBlock, copyButton } from "../copy.js";
import { fill, h, icon, newId } from "../dom.js";
import { errorNotice, notice } from "../notice.js";
import { buildSnippets } from "../snippets.js";

const DOWNLOADS = [
  { text: "Core ML", path: "core_ml_model", suffix: ".mlmodel", note: "for iOS and macOS" },
  { text: "ONNX", path: "onnx_model", suffix: ".onnx", note: "for other runtimes" },
];

export async function show(container, context, id) {
  const problem = h("div", {});
  const state = h("div", {});
  const snippets = buildSnippets({ service: SERVICE, classifierId: id });
  const address = snippets.endpoint;
  const manifest = h("div", {});
  fill(
    container,
    state,
    h(
      "section",
      { class: "section" },
      h("h2", {}, "Endpoint"),
      h("div", { class: "endpoint" }, h("code", {}, address), copyButton("endpoint", address)),
      h("p", { class: "muted after" }, "POST an image, or a zip of images, as ", h("code", {}, "images_file"), "; the answer has a score from 0 to 1 for each class."),
    ),
    h("section", { class: "section" }, h("h2", {}, "Programs"), tabs(snippets.programs)),
    h(
      "section",
      { class: "section" },
      h("h2", {}, "Keys"),
      h(
        "p",
        {},
        "The programs read an API key from ",
        h("code", {}, "OCELLI_API_KEY"),
        ". Ask the operator of this installation for a key (a credential set; see ",
        h("i", {}, "Tenants"),
        " in the documentation). A user name and password work as well: ",
        h("code", {}, "-u NAME:PASSWORD"),
        ".",
      ),
    ),
    h("section", { class: "section" }, h("h2", {}, "Model downloads"), h("div", { class: "cards" }, DOWNLOADS.map(download)), problem),
    h(
      "section",
      { class: "section" },
      h("h2", {}, "Manifest"),
      h("p", { class: "muted" }, "The same classifier as YAML, for kubectl or a Git repository. It refers to the stored uploads by their digests."),
      manifest,
    ),
  );
  draw();
  return context.watch(draw);

  function draw() {
    const card = context.classifier;
    fill(state, card.served_revision ? null : notice("info", "No revision is served yet, so the programs below get an error that says so."));
    if (manifest.dataset.text === card.manifest) return;
    manifest.dataset.text = card.manifest;
    fill(manifest, copyBlock("Manifest", card.manifest));
  }

  function download({ text, path, suffix, note }) {
    const button = h("button", { type: "button", onclick: start }, icon("download"), `Download ${text}`);
    return h("div", { class: "card" }, h("h3", {}, text), h("p", { class: "muted" }, note), button);

    async function start() {
      button.disabled = true;
      fill(problem);
      try {
        const file = await context.api.download(`/v3/classifiers/${encodeURIComponent(id)}/${path}`, { signal: context.signal });
        const link = h("a", { href: URL.createObjectURL(file), download: `${id}${suffix}` });
        link.click();
        setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
        context.announce(`${text} is downloaded.`);
      } catch (error) {
        if (!context.signal.aborted) fill(problem, errorNotice(error));
      } finally {
        button.disabled = false;
      }
    }
  }
}

/** One of several texts at a time, as the tabs of ARIA: arrows move between them. */
function tabs(items) {
  const panels = items.map((item) => h("div", { role: "tabpanel", id: newId("panel") }, item.note ? h("p", { class: "muted" }, item.note) : null, copyBlock(item.name, item.text)));
  const buttons = items.map((item, place) =>
    h("button", { type: "button", role: "tab", id: newId("tab"), class: "small", "aria-controls": panels[place].id, onclick: () => choose(place), onkeydown: (event) => move(event, place) }, item.name),
  );
  panels.forEach((panel, place) => panel.setAttribute("aria-labelledby", buttons[place].id));
  choose(0);
  return h("div", {}, h("div", { role: "tablist", class: "segments", "aria-label": "Language" }, buttons), panels);

  function choose(chosen) {
    buttons.forEach((button, place) => {
      button.setAttribute("aria-selected", String(place === chosen));
      button.tabIndex = place === chosen ? 0 : -1;
      panels[place].hidden = place !== chosen;
    });
  }

  function move(event, place) {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (step === undefined) return;
    const next = (place + step + items.length) % items.length;
    choose(next);
    buttons[next].focus();
  }
}
