// Every revision that was trained: what is served, what could be, and the way back and forward.

import { ClassifierChanges } from "../classifier-changes.js";
import { fill, h } from "../dom.js";
import { count, date, interval, percent } from "../format.js";
import { readOnlyNotice } from "../manifest.js";
import { notice } from "../notice.js";
import { buildHash } from "../router.js";

export async function show(container, context, id) {
  const changes = new ClassifierChanges(context, id);
  const pinned = h("div", {});
  const list = h("div", {});
  let drawn;
  fill(container, h("h2", { class: "hidden-text" }, "History"), pinned, changes.problem, list);
  draw();
  return context.watch(draw);

  function draw() {
    const card = context.classifier;
    const text = JSON.stringify([card.history, card.pinned_revision, card.awaits_approval, card.writable, card.manifest]);
    if (text === drawn) return;
    drawn = text;
    const focused = document.activeElement?.dataset?.key;
    fill(
      pinned,
      card.pinned_revision === undefined
        ? null
        : notice(
            "info",
            ["Revision ", h("code", {}, card.pinned_revision), " is pinned: it is served even after further trainings."],
            card.writable ? button("Unpin it", { action: "unpin", said: "Unpinned.", key: "unpin" }) : null,
          ),
      card.writable ? null : readOnlyNotice(card),
    );
    const entries = card.history ?? [];
    if (entries.length === 0) {
      fill(list, h("div", { class: "empty" }, h("h2", {}, "No revision yet"), h("p", {}, "Each training adds a revision here, with its accuracy.")));
      return;
    }
    fill(list, h("ol", { class: "revisions" }, entries.map((entry, place) => row(card, entry, entries[place + 1]))));
    if (focused) list.querySelector(`[data-key="${focused}"]`)?.focus();
  }

  function row(card, entry, older) {
    const accuracy = entry.accuracy;
    return h(
      "li",
      { class: "card revision" },
      h(
        "div",
        {},
        h(
          "div",
          { class: "name-line" },
          h("h3", {}, h("code", {}, entry.revision)),
          entry.served ? h("span", { class: "badge good" }, "Served") : null,
          entry.current && !entry.served ? h("span", { class: "badge" }, "Current") : null,
          entry.pinned ? h("span", { class: "badge warning" }, "Pinned") : null,
          card.awaits_approval === entry.revision ? h("span", { class: "badge warning" }, "Awaits approval") : null,
        ),
        h("p", { class: "muted" }, `Trained ${date(entry.trained)}`),
      ),
      h(
        "div",
        { class: "quality" },
        h("strong", {}, percent(accuracy?.value)),
        accuracy === undefined ? " not measured" : " accurate",
        accuracy === undefined ? null : h("div", { class: "sub muted" }, `${interval(accuracy)}${accuracy.images === undefined ? "" : `, on ${count(accuracy.images, "image")}`}`),
        comparison(entry.comparison),
      ),
      h(
        "div",
        { class: "actions" },
        card.awaits_approval === entry.revision && card.writable
          ? button("Approve", { action: "approve", said: "Approved.", revision: entry.revision, kind: "primary" })
          : null,
        card.writable && !entry.served && entry.stored
          ? button(isOlder(card, entry) ? "Roll back to it" : "Serve it", {
              action: "pin",
              said: `Revision ${entry.revision} is pinned and will be served.`,
              revision: entry.revision,
            })
          : null,
        entry.stored ? null : h("span", { class: "muted" }, "no longer stored"),
        older === undefined ? null : h("a", { class: "button small", href: buildHash(["classifiers", id, "compare", entry.revision, older.revision]) }, "Compare with the one before"),
        h("a", { class: "button small", href: buildHash(["classifiers", id, "quality", entry.revision]) }, "Quality"),
      ),
    );
  }

  function isOlder(card, entry) {
    const served = card.history.findIndex((other) => other.served);
    return served >= 0 && card.history.indexOf(entry) > served;
  }

  function button(text, { action, said, revision, key = `${action}-${revision}`, kind = "" }) {
    const body = revision === undefined ? {} : { revision };
    return changes.button(text, { action, said, body, class: `small ${kind}`, dataset: { key } });
  }
}

/** How a revision compares with the one that served when it was trained. */
function comparison(found) {
  if (found === undefined) return null;
  if (found.fault !== undefined) return h("div", { class: "sub muted" }, found.fault);
  const points = Math.abs(found.drop * 100).toFixed(1);
  const words = found.drop > 0 ? `${points} points lower` : found.drop < 0 ? `${points} points higher` : "the same accuracy";
  return h("div", { class: "sub muted" }, `${words} than ${found.baseline}, on the same ${count(found.images, "image")}`);
}
