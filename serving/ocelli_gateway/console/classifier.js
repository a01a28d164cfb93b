// The pages of one classifier: its name, state and tabs, kept current, and below them the page that the address names.
//
// Each page is called as `show(container, context, classifierId, ...rest of the address)`. Its context has in addition:
// `classifier` (the card with all details, always the newest), `watch(listener)` (called after each change; returns its end),
// `update(details)` (an answer of the API that holds the new state), `reload()`, and `isDeleting`, which a page sets.

import { isAborted } from "./api.js";
import { fill, h, icon } from "./dom.js";
import { errorNotice, notice } from "./notice.js";
import { show as showAdd } from "./pages/add.js";
import { show as showCompare } from "./pages/compare.js";
import { show as showData } from "./pages/data.js";
import { show as showHistory } from "./pages/history.js";
import { show as showQuality } from "./pages/quality.js";
import { show as showQuickTest } from "./pages/quick-test.js";
import { show as showTraining } from "./pages/training.js";
import { show as showUse } from "./pages/use.js";
import { buildHash } from "./router.js";
import { accuracyText, statusBadge } from "./status.js";

/** Pages by the part of the address after the id, with the text of their tab. Pages without a text have no tab. */
const PAGES = {
  training: { text: "Training", show: showTraining },
  quality: { text: "Quality", show: showQuality },
  data: { text: "Data", show: showData },
  "quick-test": { text: "Quick test", show: showQuickTest },
  history: { text: "History", show: showHistory },
  compare: { show: showCompare, tab: "history" },
  use: { text: "Use it", show: showUse },
  add: { show: showAdd, tab: "training" },
};
const FIRST = "training";
/** Changes of a training come every two seconds; several at once are read once. */
const GATHER_MS = 150;

export async function show(container, context, id, name = FIRST, ...rest) {
  const path = `/ocelli/v1/classifiers/${encodeURIComponent(id)}`;
  const listeners = new Set();
  const head = h("div", { class: "classifier-head" });
  const gone = h("div", {});
  const body = h("div", { class: "classifier-body" });
  let timer;
  let headText;
  let cleanup;
  const own = {
    ...context,
    classifier: await context.api.get(path, {}, { signal: context.signal }),
    watch: (listener) => {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    update: (details) => {
      own.classifier = details;
      drawHead();
      for (const listener of [...listeners]) listener(details);
    },
    reload: async () => own.update(await context.api.get(path, {}, { signal: context.signal })),
  };
  const page = Object.hasOwn(PAGES, name) ? PAGES[name] : undefined;
  fill(container, head, gone, body);
  container.dataset.title = [page?.text ?? PAGES[page?.tab]?.text, own.classifier.name].filter(Boolean).join(": ");
  drawHead();
  const end = context.live.subscribe((change) => {
    if (change.id !== undefined && change.id !== id) return;
    if (context.live.cards !== undefined && !context.live.cards.has(id)) return drawGone();
    // A new state of the connection changes nothing; a new list may.
    if (change.id === undefined && !change.isList) return;
    timer ??= setTimeout(refresh, GATHER_MS);
  });
  if (page === undefined) fill(body, notice("warning", "There is no such page.", h("a", { href: addressOf(FIRST) }, "Training")));
  else cleanup = await page.show(body, own, id, ...rest);
  return () => {
    end();
    clearTimeout(timer);
    cleanup?.();
  };

  async function refresh() {
    timer = undefined;
    try {
      await own.reload();
    } catch (error) {
      if (isAborted(error)) return;
      if (error.status === 404) drawGone();
      else fill(gone, errorNotice(error, refresh));
    }
  }

  function drawGone() {
    // Whoever deletes it here knows.
    if (own.isDeleting || gone.childElementCount > 0) return;
    const text = "This classifier was deleted elsewhere. This page shows its last known state, which can no longer be changed.";
    fill(gone, notice("warning", text, h("a", { href: buildHash(["classifiers"]) }, "All classifiers")));
    context.announce(text);
  }

  function addressOf(section) {
    return buildHash(["classifiers", id, section]);
  }

  function drawHead() {
    const card = own.classifier;
    // Drawn again, a link would lose the focus.
    const text = JSON.stringify([card.status, card.accuracy, card.awaits_approval, card.suspended, card.managed_by, card.writable]);
    if (text === headText) return;
    headText = text;
    const current = page?.tab ?? name;
    const focused = document.activeElement?.dataset?.tab;
    fill(
      head,
      h("p", { class: "crumbs" }, h("a", { href: buildHash(["classifiers"]) }, "Classifiers")),
      h(
        "div",
        { class: "title-row" },
        head.querySelector("h1") ?? h("h1", { tabindex: "-1" }, card.name),
        statusBadge(card),
        h("span", { class: "muted" }, accuracyText(card)),
      ),
      h(
        "p",
        { class: "facts muted" },
        h("code", {}, card.classifier_id),
        h("span", {}, managerText(card.managed_by)),
        card.writable ? null : h("span", { class: "locked" }, icon("lock"), "read-only here"),
      ),
      h(
        "nav",
        { class: "tabs", "aria-label": "Pages of this classifier" },
        Object.entries(PAGES)
          .filter(([, item]) => item.text !== undefined)
          .map(([section, item]) =>
            h(
              "a",
              { href: addressOf(section), "aria-current": section === current ? "page" : undefined, dataset: { tab: section } },
              item.text,
            ),
          ),
      ),
    );
    // In a narrow window the tab of the page may be outside.
    const tabs = head.querySelector(".tabs");
    const tab = tabs.querySelector("[aria-current]");
    if (tab) tabs.scrollLeft = tab.offsetLeft - (tabs.clientWidth - tab.clientWidth) / 2;
    if (focused) head.querySelector(`[data-tab="${focused}"]`)?.focus();
  }
}

function managerText(managedBy) {
  if (managedBy === undefined) return "";
  return managedBy === "REST" ? "managed through the REST API" : `managed by ${managedBy}`;
}
