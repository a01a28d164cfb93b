// A new classifier from folders of images.

import { fill, h, newId } from "../dom.js";
import { dropDraft, keepDraft, listDrafts, renewDraft } from "../examples/drafts.js";
import { ExampleEditor } from "../examples/example-editor.js";
import { SendingForm } from "../examples/sending-form.js";
import { ago } from "../format.js";
import { notice } from "../notice.js";
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
      form.draw();
    },
  });
  const drafts = h("div", {});
  const editor = new ExampleEditor({ signal: context.signal, announce: context.announce, onChange: () => form.draw() });
  const form = new SendingForm({ context, editor, action: "Create and train", problems, send });
  fill(
    container,
    h("h1", { tabindex: "-1" }, "New classifier"),
    h("p", { class: "muted lead" }, "Show it examples of each class: twenty images are a good start, ten are the minimum."),
    drafts,
    h("div", { class: "field narrow" }, h("label", { for: name.id }, "Name"), name),
    editor.element,
    form.elements,
  );
  drawDrafts();
  form.draw();
  return () => {
    form.close();
    editor.close();
  };

  function drawDrafts() {
    const begun = listDrafts(session.user);
    fill(
      drafts,
      begun.map((draft) =>
        notice(
          "info",
          [h("strong", {}, draft.name), ` was started ${ago(new Date(draft.begun).toISOString())}. Drop the same folders again: only what is missing is sent.`],
          h("button", { type: "button", class: "small", onclick: () => use(draft) }, "Continue"),
          h("button", { type: "button", class: "small plain", onclick: () => (dropDraft(draft.id), drawDrafts()) }, "Discard"),
        ),
      ),
    );
  }

  function use(draft) {
    name.value = draft.name;
    context.setQuery({ name: draft.name });
    form.draw();
    editor.element.querySelector("button").focus();
  }

  function problems() {
    const found = [];
    const { sets } = editor.sets;
    if (!sets.some((set) => !set.negative)) found.push("Add at least one class; there are only negative examples.");
    else if (sets.length < 2) found.push("Add another class, or negative examples.");
    if (name.value.trim() === "") found.push("Give the classifier a name.");
    return found;
  }

  async function send(sending, signal) {
    const title = name.value.trim();
    name.disabled = true;
    let id;
    try {
      id = await drawId(title, sending, signal);
      const examples = await sending.send(id, editor.sets.sets, () => renewDraft(id));
      const body = { classifier_id: id, name: title, ...examples };
      await sending.persist(() => api.post("/ocelli/v1/classifiers", body, { signal }));
      dropDraft(id);
      context.announce("The classifier is created; its training begins.");
      return buildHash(["classifiers", id]);
    } catch (error) {
      // The id belongs to a classifier with other images, for example because the answer to its creation was lost: next time another is drawn.
      if (error.status === 409 || error.body?.error_id === "classifier_not_ready") dropDraft(id);
      throw error;
    } finally {
      name.disabled = false;
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
