// More images for a classifier: new classes, or more examples of its classes. This is a retrain.

import { fill, h } from "../dom.js";
import { ExampleEditor } from "../examples/example-editor.js";
import { SendingForm } from "../examples/sending-form.js";
import { readOnlyNotice } from "../manifest.js";
import { buildHash } from "../router.js";

export async function show(container, context, id) {
  const card = context.classifier;
  if (!card.writable) {
    fill(container, h("h2", {}, "Add images"), readOnlyNotice(card));
    return undefined;
  }
  const known = (card.classes ?? []).map((item) => item.class);
  const editor = new ExampleEditor({ signal: context.signal, announce: context.announce, known, onChange: () => form.draw() });
  const form = new SendingForm({ context, editor, action: "Add and retrain", send });
  fill(
    container,
    h("h2", {}, "Add images"),
    h("p", { class: "muted" }, "A folder with the name of a class adds to it; any other name becomes a new class. The current revision answers until the new one is trained."),
    h("div", { class: "chips", role: "group", "aria-label": "Classes" }, known.map((name) => h("span", { class: "chip" }, name))),
    editor.element,
    form.elements,
  );
  form.draw();
  return () => {
    form.close();
    editor.close();
  };

  async function send(sending, signal) {
    const examples = await sending.send(id, editor.sets.sets);
    const path = `/ocelli/v1/classifiers/${encodeURIComponent(id)}/examples`;
    context.update(await sending.persist(() => context.api.post(path, examples, { signal })));
    context.announce("The images are added; the training begins.");
    return buildHash(["classifiers", id, "training"]);
  }
}
