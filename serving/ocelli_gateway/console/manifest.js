// Classifiers that belong to a repository: what to commit instead of a change here.

import { copyBlock } from "./copy.js";
import { h } from "./dom.js";
import { notice } from "./notice.js";

/** Why a classifier cannot be changed here, and its manifest to commit. */
export function readOnlyNotice(card, manifest = card.manifest) {
  return h(
    "div",
    {},
    notice(
      "info",
      `${card.managed_by ?? "Another tool"} manages this classifier, so a change here would be undone. Change the manifest at its source. Its current content:`,
    ),
    manifest === undefined ? null : copyBlock("Manifest", manifest),
  );
}

/** The notice for a refused change, where the service gave the manifest to commit instead; undefined for other errors. */
export function manifestNotice(error) {
  const manifest = error.body?.manifest;
  if (error.status !== 409 || manifest === undefined) return undefined;
  return h("div", {}, notice("warning", error.message), copyBlock("Manifest to commit instead", manifest));
}
