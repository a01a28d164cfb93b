// More images for a classifier: new classes, or more examples of its classes. This is a retrain.

import { isAborted } from "../api.js";
import { fill, h } from "../dom.js";
import { ExampleEditor } from "../examples/example-editor.js";
import { Sending } from "../examples/sending.js";
import { buildSendingView } from "../examples/sending-view.js";
import { bytes, count } from "../format.js";
import { readOnlyNotice } from "../manifest.js";
import { errorNotice, notice } from "../notice.js";
import { buildHash } from "../router.js";

export async function show(container, context, id) {
  const card = context.classifier;
  if (!card.writable) {
    fill(container, h("h2", {}, "Add images"), readOnlyNotice(card));
    return undefined;
  }
  const known = (card.classes ?? []).map((item) => item.class);
  const editor = new ExampleEditor({ signal: context.signal, announce: context.announce, known, onChange: drawReady });
  const problem = h("div", {});
  const progress = h("div", {});
  const ready = h("div", { class: "muted", role: "status" });
  const button = h("button", { type: "button", class: "primary", onclick: add }, "Add and retrain");
  const foot = h("div", { class: "card foot" }, ready, h("div", { class: "actions" }, button));
  let controller;
  let done = false;
  fill(
    container,
    h("h2", {}, "Add images"),
    h("p", { class: "muted" }, "A folder with the name of a class adds to it; any other name becomes a new class. The present revision answers until the new one is trained."),
    h("div", { class: "chips", role: "group", "aria-label": "Classes" }, known.map((name) => h("span", { class: "chip" }, name))),
    editor.element,
    problem,
    progress,
    foot,
  );
  drawReady();
  context.onLeave(() => !done && (!editor.sets.isEmpty || controller !== undefined) && "The images that you chose are not all sent yet.");
  return () => {
    controller?.abort();
    editor.close();
  };

  function drawReady() {
    const { sets } = editor;
    const problems = sets.isChecking ? ["The images are being checked."] : editor.problems();
    const reason = sets.isEmpty ? "Drop the images to add." : problems[0];
    button.disabled = reason !== undefined || controller !== undefined;
    foot.hidden = sets.isEmpty || controller !== undefined;
    const text = reason ?? `Ready: ${count(sets.images, "image")}, ${bytes(sets.bytes)}. Nothing has been sent yet.`;
    if (ready.textContent !== text) fill(ready, text);
  }

  async function add() {
    if (controller !== undefined) return;
    controller = new AbortController();
    const signal = controller.signal;
    const view = buildSendingView({ onTryNow: () => sending.tryNow(), onStop: () => controller?.abort() });
    const sending = new Sending(context.api, signal, (state) => view.draw(state));
    editor.locked = foot.hidden = true;
    fill(problem);
    fill(progress, view.element);
    view.focus();
    try {
      const examples = await sending.send(id, editor.sets.sets);
      const path = `/ocelli/v1/classifiers/${encodeURIComponent(id)}/examples`;
      context.update(await sending.persist(() => context.api.post(path, examples, { signal })));
      done = true;
      context.announce("The images are added; the training begins.");
      context.go(buildHash(["classifiers", id, "training"]));
    } catch (error) {
      if (!context.signal.aborted) {
        fill(problem, isAborted(error) ? notice("info", "Stopped. Add again to send only the rest.") : errorNotice(error, add));
      }
    } finally {
      controller = undefined;
      view.close();
      fill(progress);
      editor.locked = false;
      drawReady();
      if (!done) button.focus();
    }
  }
}
