// The training of a classifier: how far it is, why it failed and what to do, and what it learns from.

import { ClassifierChanges } from "../classifier-changes.js";
import { confirm } from "../dialog.js";
import { fill, h, icon } from "../dom.js";
import { ago, bytes, count, date, duration, interval, number, percent } from "../format.js";
import { readOnlyNotice } from "../manifest.js";
import { errorNotice, notice } from "../notice.js";
import { buildHash } from "../router.js";
import { stageText } from "../status.js";

const TICK_MS = 1000;
const SHOWN_FILES = 10;

export async function show(container, context, id) {
  const path = `/ocelli/v1/classifiers/${encodeURIComponent(id)}`;
  const state = h("section", { class: "section", "aria-label": "State of the training" });
  const changes = new ClassifierChanges(context, id);
  const actions = h("div", { class: "actions" });
  const sets = h("section", { class: "section" });
  const danger = h("section", { class: "section" });
  let failed;
  let last = context.classifier.status;
  const drawn = new Map();
  fill(container, state, changes.problem, actions, sets, danger);
  draw();
  const end = context.watch(draw);
  const ticking = setInterval(() => context.classifier.progress && drawState(), TICK_MS);
  return () => {
    end();
    clearInterval(ticking);
  };

  function draw() {
    const { status, name } = context.classifier;
    if (status !== last && (status === "ready" || status === "failed")) context.announce(`${name}: ${status}.`);
    last = status;
    drawState();
    const card = context.classifier;
    drawChanged(drawActions, [card.writable, status, card.suspended]);
    drawChanged(drawSets, [card.writable, card.classes, card.negative_sources, card.corrections]);
    drawChanged(drawDanger, [card.writable, card.manifest]);
  }

  /** Draw only if these values have changed: a button that is replaced loses the focus. */
  function drawChanged(draw, values) {
    const text = JSON.stringify(values);
    if (drawn.get(draw) === text) return;
    drawn.set(draw, text);
    draw();
  }

  function drawState() {
    const card = context.classifier;
    if (card.status === "failed" || card.progress !== undefined) drawn.delete(drawApproval);
    if (card.status === "failed") return drawFailure(card);
    failed = undefined;
    if (card.progress !== undefined) return updateProgress(state, card.progress);
    if (card.awaits_approval !== undefined) {
      return drawChanged(drawApproval, [card.awaits_approval, card.explanation, card.writable]);
    }
    drawn.delete(drawApproval);
    if (card.suspended) {
      return fill(state, notice("info", "Training is suspended: the data is checked, but nothing is trained until you resume training."));
    }
    if (card.status !== "ready") {
      return fill(state, notice("info", card.explanation ?? "The training has not begun yet. This page updates itself."));
    }
    fill(state, card.explanation ? notice("warning", card.explanation) : summary(card));
  }

  function drawFailure(card) {
    const key = `${card.current_revision} ${card.explanation}`;
    if (failed === key) return;
    failed = key;
    const images = h("div", {});
    fill(
      state,
      notice(
        "bad",
        [h("p", {}, h("strong", {}, "The training failed. "), card.explanation ?? "The service gave no reason."),
          card.served_revision ? h("p", {}, "The revision that was served before still answers.") : null],
      ),
      images,
    );
    showFaultyImages(images, path, context);
  }

  function drawActions() {
    const card = context.classifier;
    if (!card.writable) return fill(actions);
    const running = card.status === "training" || card.status === "retraining";
    fill(
      actions,
      h("a", { class: `button ${card.status === "failed" ? "primary" : ""}`, href: buildHash(["classifiers", id, "add"]) }, icon("add"), "Add images"),
      changes.button(running ? "Training…" : "Train again", { action: "retrain", said: "The training begins.", disabled: running }),
      card.suspended
        ? changes.button("Resume training", { action: "resume", said: "Resumed." })
        : changes.button("Suspend training", { action: "suspend", said: "Suspended." }),
    );
  }

  function drawApproval() {
    const card = context.classifier;
    const box = notice(
      "warning",
      card.explanation ?? `The revision ${card.awaits_approval} is trained and waits for an approval.`,
      card.writable
        ? changes.button("Approve it", { action: "approve", said: "Approved.", body: { revision: card.awaits_approval }, class: "primary" })
        : null,
      h("a", { href: buildHash(["classifiers", id, "compare", card.awaits_approval, "served"]) }, "Compare it with what is served"),
    );
    fill(state, box);
  }

  function drawSets() {
    const card = context.classifier;
    const rows = (card.classes ?? []).map((item) => ({ name: item.class, sources: item.sources, removal: { classes: [item.class] } }));
    if (card.negative_sources?.length > 0) {
      rows.push({ name: "Negative examples", sources: card.negative_sources, removal: { negative_examples: true } });
    }
    if (rows.length === 0) return fill(sets);
    // A classifier needs two sets.
    const removable = card.writable && rows.length > 2;
    fill(
      sets,
      h("h2", {}, "Classes"),
      h(
        "div",
        { class: "table-box" },
        h(
          "table",
          {},
          h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "Class"), h("th", { scope: "col" }, "Learns from"), removable ? h("td", {}) : null)),
          h("tbody", {}, rows.map((row) => setRow(row, removable))),
        ),
      ),
      card.corrections?.length > 0
        ? h("p", { class: "muted after" }, `${count(card.corrections.length, "image")} corrected by hand; see `, h("a", { href: buildHash(["classifiers", id, "quality"]) }, "Quality"), ".")
        : null,
    );
  }

  function setRow({ name, sources, removal }, removable) {
    return h(
      "tr",
      {},
      h("th", { scope: "row", class: "row-name" }, name),
      h("td", {}, sourcesText(sources)),
      removable
        ? h("td", { class: "number" }, h("button", { type: "button", class: "small plain", "aria-label": `Remove ${name}…`, onclick: (event) => removeSet(event.currentTarget, name, removal) }, "Remove…"))
        : null,
    );
  }

  async function removeSet(pressed, name, removal) {
    const moved = (context.classifier.corrections ?? []).filter((item) => removal.classes?.includes(item.class)).length;
    const also = moved > 0 ? `, with ${count(moved, "image")} moved to it,` : "";
    const text = `${name} and its images${also} are removed, and the classifier is trained again without them. Until then the current revision answers.`;
    if (!(await confirm(`Remove ${name}?`, { text, action: "Remove and retrain", dangerous: true }))) return;
    await changes.make(pressed, { action: "remove", said: "Removed; the training begins.", body: removal });
  }

  function drawDanger() {
    const card = context.classifier;
    if (!card.writable) return fill(danger, h("h2", {}, "Changes"), readOnlyNotice(card));
    if (danger.childElementCount > 0) return;
    fill(danger, h("h2", {}, "Delete"), h("p", { class: "muted" }, "Deletes this classifier with its revisions, images and reports."),
      h("button", { type: "button", class: "danger-quiet", onclick: remove }, "Delete this classifier…"));
  }

  async function remove(event) {
    const card = context.classifier;
    const text = [`${card.name} stops answering immediately, and its images, revisions and reports are deleted. This cannot be undone.`];
    if (!(await confirm("Delete this classifier?", { text, action: "Delete it", typed: card.name, dangerous: true }))) return;
    event.target.disabled = context.isDeleting = true;
    try {
      await context.api.delete(`/v3/classifiers/${encodeURIComponent(id)}`);
    } catch (error) {
      // Somebody else was faster: it is gone, which is what was asked for.
      if (error.status !== 404) {
        event.target.disabled = context.isDeleting = false;
        return fill(changes.problem, errorNotice(error));
      }
    }
    context.announce(`${card.name} is deleted.`);
    context.go(buildHash(["classifiers"]));
  }
}

/** The progress, drawn into the same elements each time: a bar that is replaced would be read again. */
function updateProgress(container, progress) {
  let box = container.querySelector(".training");
  if (box === null) {
    box = h("div", { class: "card training" }, h("h2", {}), h("progress", { max: 100, value: 0, "aria-label": "Training" }), h("dl", { class: "pairs" }));
    fill(container, box);
  }
  const [title, bar, facts] = box.children;
  const stage = stageText(progress.stage);
  if (title.textContent !== stage) title.textContent = stage;
  bar.value = progress.percent;
  const end = Date.parse(progress.estimated_completion);
  const tuning = progress.fine_tuning;
  fill(
    facts,
    pair("Done", `${progress.percent} %`),
    Number.isNaN(end) ? null : pair("Time left", end <= Date.now() ? "a moment" : duration((end - Date.now()) / 1000)),
    progress.images === undefined ? null : pair("Images", `${number(progress.images)} of ${number(progress.images_total)}`),
    tuning === undefined ? null : pair("Fine-tuning", `network ${tuning.network} of ${tuning.networks}, epoch ${tuning.epoch} of ${tuning.epochs}`),
    progress.accuracy === undefined ? null : pair("Accuracy", percent(progress.accuracy)),
    progress.device === undefined ? null : pair("Device", progress.device),
  );
}

function summary(card) {
  const trained = card.history?.find((entry) => entry.served)?.trained;
  const accuracy = card.accuracy;
  return h(
    "div",
    { class: "card" },
    h(
      "div",
      { class: "metrics" },
      metric("Accuracy", percent(accuracy?.value), accuracy?.images === undefined ? "not measured" : `${interval(accuracy)}, on ${count(accuracy.images, "image")}`),
      metric("Classes", number(card.class_count)),
      trained === undefined ? null : metric("Trained", ago(trained), date(trained)),
    ),
  );
}

function metric(name, value, note = "") {
  return h("div", { class: "metric" }, h("span", { class: "name" }, name), h("span", { class: "value" }, value), h("span", { class: "muted" }, note));
}

function pair(name, value) {
  return h("div", {}, h("dt", {}, name), h("dd", {}, value));
}

function sourcesText(sources) {
  const uploads = sources.filter((source) => source.upload !== undefined);
  const size = uploads.reduce((sum, source) => sum + (source.bytes ?? 0), 0);
  const erased = sources.filter((source) => source.erased).length;
  return [
    uploads.length > 0 ? h("div", {}, `${count(uploads.length, "upload")}${size > 0 ? `, ${bytes(size)}` : ""}`) : null,
    sources.filter((source) => source.url !== undefined).map((source) => h("div", {}, h("code", {}, source.url))),
    erased > 0 ? h("div", { class: "muted" }, `${erased} erased`) : null,
  ];
}

/** The images that a failed training is about, as far as the check of its data names some. */
async function showFaultyImages(container, path, context) {
  let report;
  try {
    report = await context.api.get(`${path}/revisions/latest/data`, {}, { signal: context.signal });
  } catch {
    // The training failed before its data was read; its message says all there is.
    return;
  }
  const files = (report.sets ?? []).flatMap((set) => (set.skipped ?? []).map((file) => ({ ...file, set: set.class ?? "negative examples" })));
  if (files.length === 0) return;
  const more = files.length - SHOWN_FILES;
  fill(
    container,
    h("h2", { class: "after" }, "Images that could not be used"),
    h("ul", {}, files.slice(0, SHOWN_FILES).map((file) => h("li", {}, `${file.set}: ${file.name}, ${file.reason}`)), more > 0 ? h("li", {}, `and ${more} more`) : null),
    h("p", {}, h("a", { href: buildHash(["classifiers", context.classifier.classifier_id, "data", "latest"]) }, "Everything that was found in the data")),
  );
}
