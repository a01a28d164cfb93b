// A new classifier from folders of images.

import { isAborted } from "../api.js";
import { fill, h, newId } from "../dom.js";
import { dropDraft, keepDraft, listDrafts } from "../examples/drafts.js";
import { ExampleEditor } from "../examples/example-editor.js";
import { Sending } from "../examples/sending.js";
import { buildSendingView } from "../examples/sending-view.js";
import { ago, bytes, count } from "../format.js";
import { errorNotice, notice } from "../notice.js";
import { buildHash } from "../router.js";

export async function show(container, context) {
  const { api, session } = context;
  const name = h("input", {
    id: newId("name"),
    value: context.query.get("name") ?? "",
    autocomplete: "off",
    placeholder: "Dogs",
    oninput: () => {
      context.setQuery({ name: name.value });
      drawReady();
    },
  });
  const drafts = h("div", {});
  const problem = h("div", {});
  const ready = h("div", { class: "muted", role: "status" });
  const button = h("button", { type: "button", class: "primary", onclick: create }, "Create and train");
  const foot = h("div", { class: "card foot" }, ready, h("div", { class: "actions" }, button));
  const editor = new ExampleEditor({ signal: context.signal, announce: context.announce, onChange: drawReady });
  const progress = h("div", {});
  let controller;
  let done = false;
  let tried = false;
  fill(
    container,
    h("h1", { tabindex: "-1" }, "New classifier"),
    h("p", { class: "muted lead" }, "Show it examples of each class: twenty images are a good start, ten are the minimum."),
    drafts,
    h("div", { class: "field narrow" }, h("label", { for: name.id }, "Name"), name),
    editor.element,
    problem,
    progress,
    foot,
  );
  drawDrafts();
  drawReady();
  context.onLeave(() => {
    if (done || (editor.sets.isEmpty && controller === undefined)) return false;
    return controller === undefined
      ? "The images that you chose are not sent yet."
      : "Images are being sent. What is already stored is kept for an hour: drop the same folders again to send the rest.";
  });
  return () => {
    controller?.abort();
    editor.close();
  };

  function drawDrafts() {
    const begun = listDrafts(session.user);
    fill(
      drafts,
      begun.map((draft) =>
        notice(
          "info",
          [h("strong", {}, draft.name), ` was begun ${ago(new Date(draft.begun).toISOString())}. Drop the same folders again: only what is missing is sent.`],
          h("button", { type: "button", class: "small", onclick: () => use(draft) }, "Continue"),
          h("button", { type: "button", class: "small plain", onclick: () => (dropDraft(draft.id), drawDrafts()) }, "Discard"),
        ),
      ),
    );
  }

  function use(draft) {
    name.value = draft.name;
    context.setQuery({ name: draft.name });
    drawReady();
    editor.element.querySelector("button").focus();
  }

  /** What is missing before anything can be sent. */
  function missing() {
    const { sets } = editor;
    if (sets.isEmpty) return ["Drop the images of at least two classes."];
    if (sets.isChecking) return ["The images are being checked."];
    const problems = editor.problems();
    if (!sets.sets.some((set) => !set.negative)) problems.push("Add at least one class; there are only negative examples.");
    else if (sets.sets.length < 2) problems.push("Add another class, or negative examples.");
    if (name.value.trim() === "") problems.push("Give the classifier a name.");
    return problems;
  }

  function drawReady() {
    const reasons = missing();
    button.disabled = reasons.length > 0 || controller !== undefined;
    foot.hidden = editor.sets.isEmpty || controller !== undefined;
    const { sets } = editor;
    const text =
      reasons.length === 0
        ? `Ready: ${count(sets.images, "image")}, ${bytes(sets.bytes)}.${tried ? "" : " Nothing has been sent yet."}`
        : reasons.length === 1
          ? reasons[0]
          : `${reasons[0]} And ${reasons.length - 1} more.`;
    if (ready.textContent !== text) fill(ready, text);
  }

  async function create() {
    if (controller !== undefined) return;
    controller = new AbortController();
    tried = true;
    const signal = controller.signal;
    const view = buildSendingView({ onTryNow: () => sending.tryNow(), onStop: () => controller?.abort() });
    const sending = new Sending(api, signal, (state) => view.draw(state));
    editor.locked = name.disabled = true;
    foot.hidden = true;
    fill(problem);
    fill(progress, view.element);
    view.focus();
    const title = name.value.trim();
    try {
      const id = await drawId(title, sending, signal);
      const examples = await sending.send(id, editor.sets.sets);
      const body = { classifier_id: id, name: title, ...examples };
      await sending.persist(() => api.post("/ocelli/v1/classifiers", body, { signal }));
      done = true;
      dropDraft(id);
      context.announce("The classifier is created; its training begins.");
      context.go(buildHash(["classifiers", id]));
    } catch (error) {
      // An aborted page has nothing to show any more.
      if (!context.signal.aborted) fill(problem, isAborted(error) ? stopped() : errorNotice(error, create));
    } finally {
      controller = undefined;
      view.close();
      fill(progress);
      editor.locked = name.disabled = false;
      drawReady();
      if (!done) button.focus();
    }
  }

  async function drawId(title, sending, signal) {
    const begun = listDrafts(session.user).find((draft) => draft.name === title);
    if (begun !== undefined) return begun.id;
    const { classifier_id: id } = await sending.persist(() => api.post("/ocelli/v1/uploads", { name: title }, { signal }));
    keepDraft(session.user, title, id);
    return id;
  }
}

function stopped() {
  return notice("info", "Stopped. What is already stored is kept for an hour: create it again to send only the rest.");
}
