// Which revision a page shows, and the list to choose another one.

import { h, newId } from "../dom.js";
import { date } from "../format.js";

/** The revision that was asked for, else the served one, else the newest; undefined if there is none. */
export function chooseRevision(classifier, asked) {
  const revisions = classifier.history.map((entry) => entry.revision);
  const wanted = [resolveRevision(classifier, asked), classifier.served_revision, revisions[0]];
  return wanted.find((revision) => revisions.includes(revision)) ?? classifier.served_revision;
}

/** Addresses may also say `served` and `latest`, as those of the API. */
export function resolveRevision(classifier, asked) {
  return { served: classifier.served_revision, latest: classifier.current_revision }[asked] ?? asked;
}

/** `href(revision)` is the address of the page for another one. `revisions` may name some that are not in the history yet. */
export function revisionPicker(classifier, revision, href, { label = "Revision", revisions } = {}) {
  const id = newId("revision");
  const entries = new Map(classifier.history.map((entry) => [entry.revision, entry]));
  const listed = new Set([...(revisions ?? entries.keys()), revision]);
  const options = [...listed].map((name) =>
    h("option", { value: name, selected: name === revision }, describe(entries.get(name) ?? { revision: name })),
  );
  return h(
    "p",
    { class: "field-line" },
    h("label", { for: id }, label),
    h("select", { id, onchange: (event) => (location.hash = href(event.target.value)) }, options),
  );
}

function describe(entry) {
  const marks = [entry.served ? "served" : "", entry.pinned ? "pinned" : ""].filter(Boolean).join(", ");
  return `${entry.revision}${marks ? ` (${marks})` : ""}${entry.trained ? `, ${date(entry.trained)}` : ""}`;
}
