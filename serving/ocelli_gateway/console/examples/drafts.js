// Classifiers that were begun and not created yet, so that images which are dropped again are not sent again. Only names and ids are kept
// in the browser, for as long as the service keeps the uploads.

const KEY = "ocelli-drafts";
const LIFE_MS = 3_600_000;

/** The drafts of a user: [{name, id, begun}], the newest first. */
export function listDrafts(user) {
  return read()
    .filter((draft) => draft.user === user)
    .sort((a, b) => b.begun - a.begun);
}

export function keepDraft(user, name, id) {
  write([...read().filter((draft) => draft.user !== user || draft.name !== name), { user, name, id, begun: Date.now() }]);
}

/** The service has stored something of it: what was sent before is kept as long as that. */
export function renewDraft(id) {
  write(read().map((draft) => (draft.id === id ? { ...draft, renewed: Date.now() } : draft)));
}

export function dropDraft(id) {
  write(read().filter((draft) => draft.id !== id));
}

function read() {
  try {
    const kept = JSON.parse(localStorage.getItem(KEY) ?? "[]");
    return kept.filter((draft) => typeof draft.id === "string" && typeof draft.name === "string" && Date.now() - (draft.renewed ?? draft.begun) < LIFE_MS);
  } catch {
    return [];
  }
}

function write(drafts) {
  try {
    localStorage.setItem(KEY, JSON.stringify(drafts));
  } catch {
    // Storage is full or switched off: then images that are dropped again are sent again.
  }
}
