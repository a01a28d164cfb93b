// All classifiers, live. Search and filters are part of the address.

import { fill, h, icon, newId } from "../dom.js";
import { POLL_SECONDS } from "../events.js";
import { ago, count, date, duration, interval, percent } from "../format.js";
import { errorNotice } from "../notice.js";
import { buildHash } from "../router.js";
import { RowImages } from "../row-images.js";
import { stageText, statusBadge } from "../status.js";

/** Rows that are drawn at first; more follow when the end of the list comes near. */
const CHUNK = 100;
const STATES = { ready: "Ready", training: "Training", failed: "Failed", waiting: "Waits for you" };
const ORDERS = { activity: "Newest activity", name: "Name", accuracy: "Lowest accuracy" };

export async function show(container, context) {
  const { live, query } = context;
  const filters = { search: query.get("search") ?? "", state: query.get("state") ?? "", order: query.get("order") ?? "" };
  const rows = new Map();
  const images = new RowImages(context.api, context.signal);
  let drawn = CHUNK;
  const search = h("input", {
    type: "search",
    id: newId("search"),
    value: filters.search,
    placeholder: "Search",
    "aria-label": "Search by name, id, or owner",
    oninput: () => change({ search: search.value }),
  });
  const state = choice("State", { "": "All states", ...STATES }, filters.state, (value) => change({ state: value }));
  const order = choice("Order", ORDERS, filters.order || "activity", (value) => change({ order: value === "activity" ? "" : value }));
  const connection = h("span", { class: "live" });
  const problem = h("div", {});
  const found = h("p", { class: "muted", role: "status" });
  const list = h("ul", { class: "list" });
  const end = h("div", {});
  fill(
    container,
    h(
      "div",
      { class: "title-row" },
      h("h1", { tabindex: "-1" }, "Classifiers"),
      connection,
      h("a", { class: "button primary push", href: buildHash(["new"]) }, icon("add"), "New classifier"),
    ),
    h("div", { class: "filters", role: "search" }, h("div", { class: "search" }, icon("search"), search), state, order),
    problem,
    found,
    list,
    end,
  );
  const watcher = new IntersectionObserver((entries) => {
    if (!entries.some((entry) => entry.isIntersecting) || drawn >= visible().length) return;
    drawn += CHUNK;
    draw();
  }, { rootMargin: "800px" });
  watcher.observe(end);
  let frame;
  const unsubscribe = live.subscribe(() => (frame ??= requestAnimationFrame(draw)));
  draw();
  return () => {
    unsubscribe();
    watcher.disconnect();
    images.close();
    cancelAnimationFrame(frame);
  };

  function change(values) {
    Object.assign(filters, values);
    context.setQuery(filters);
    drawn = CHUNK;
    draw();
  }

  function visible() {
    const words = filters.search.toLowerCase().split(/\s+/).filter(Boolean);
    return [...(live.cards?.values() ?? [])]
      .filter((card) => matches(card, words, filters.state))
      .sort(COMPARE[filters.order] ?? COMPARE.activity);
  }

  function draw() {
    frame = undefined;
    drawConnection();
    if (live.cards === undefined) {
      fill(found, live.state === "broken" ? "" : "Reading the classifiers…");
      return;
    }
    const cards = visible();
    const shown = cards.slice(0, drawn);
    const all = live.cards.size;
    const text = cards.length === all ? count(all, "classifier") : `${cards.length} of ${count(all, "classifier")}`;
    if (found.textContent !== text) fill(found, all === 0 ? "" : text);
    if (all === 0) return drawEmpty();
    const wanted = new Set(shown.map((card) => card.classifier_id));
    for (const [id, row] of rows) if (!wanted.has(id)) (row.element.remove(), rows.delete(id));
    if (rows.size === 0) fill(list);
    shown.forEach((card, place) => {
      let row = rows.get(card.classifier_id);
      if (row === undefined) {
        row = { element: h("li", { class: "row" }), card: undefined };
        rows.set(card.classifier_id, row);
      }
      // Only what changed is drawn again, so that the focus and what a screen reader reads stay where they are.
      if (row.card !== card) drawRow(row, card, images);
      if (list.children[place] !== row.element) list.insertBefore(row.element, list.children[place] ?? null);
    });
  }

  function drawEmpty() {
    rows.clear();
    fill(
      list,
      h(
        "li",
        { class: "empty" },
        h("h2", {}, "No classifiers yet"),
        h("p", {}, "Drop a folder of images for each class, and Ocelli learns to tell them apart. Twenty images of each are a good start."),
        h("a", { class: "button primary", href: buildHash(["new"]) }, icon("add"), "New classifier"),
      ),
    );
  }

  function drawConnection() {
    const words = { live: "live", connecting: "connecting…", polled: `updated every ${POLL_SECONDS} s`, broken: "not live" };
    connection.className = `live ${{ live: "on", broken: "off" }[live.state] ?? ""}`;
    fill(connection, words[live.state]);
    if (live.state !== "broken") fill(problem);
    else if (problem.childElementCount === 0) fill(problem, errorNotice(live.error));
  }
}

function drawRow(row, card, images) {
  const focused = row.element.contains(document.activeElement);
  const accuracy = card.accuracy;
  fill(
    row.element,
    h(
      "div",
      {},
      h(
        "div",
        { class: "name-line" },
        h("h2", {}, h("a", { href: buildHash(["classifiers", card.classifier_id]) }, card.name)),
        statusBadge(card),
      ),
      h(
        "div",
        { class: "sub" },
        card.classifier_id,
        card.class_count === undefined ? "" : ` · ${count(card.class_count, "class", "classes")}`,
      ),
    ),
    images.build(card),
    card.progress === undefined ? qualityOf(accuracy) : progressOf(card),
    h(
      "div",
      { class: "owner" },
      h("div", {}, card.writable ? card.managed_by : [icon("lock"), ` ${card.managed_by ?? "read-only"}`]),
      h("time", { datetime: card.updated, title: date(card.updated) }, ago(card.updated)),
    ),
    card.status === "failed" && card.explanation ? h("p", { class: "explanation" }, card.explanation) : null,
  );
  row.card = card;
  if (focused) row.element.querySelector("a")?.focus();
}

function qualityOf(accuracy) {
  if (accuracy?.value === undefined) return h("div", { class: "quality muted" }, "not measured yet");
  const range = interval(accuracy);
  return h(
    "div",
    { class: "quality" },
    h("div", {}, h("strong", {}, percent(accuracy.value)), " accurate"),
    h(
      "div",
      { class: "sub" },
      [range, accuracy.images === undefined ? "" : `on ${count(accuracy.images, "image")}`].filter(Boolean).join(" "),
    ),
  );
}

function progressOf(card) {
  const { percent: done = 0, stage } = card.progress;
  const left = timeLeft(card.progress);
  return h(
    "div",
    { class: "progress-line" },
    h("div", { class: "sub" }, [stageText(stage), `${done} %`, left].filter(Boolean).join(" · ")),
    h("progress", { max: 100, value: done, "aria-label": `Training of ${card.name}` }),
  );
}

function timeLeft(progress) {
  const end = Date.parse(progress.estimated_completion);
  return Number.isNaN(end) || end < Date.now() ? "" : `${duration((end - Date.now()) / 1000)} left`;
}

function choice(label, options, value, chosen) {
  return h(
    "select",
    { "aria-label": label, onchange: (event) => chosen(event.target.value) },
    Object.entries(options).map(([key, text]) => h("option", { value: key, selected: key === value }, text)),
  );
}

function matches(card, words, state) {
  const text = `${card.name} ${card.classifier_id} ${card.managed_by ?? ""} ${card.resource}`.toLowerCase();
  return words.every((word) => text.includes(word)) && (state === "" || isIn(card, state));
}

function isIn(card, state) {
  if (state === "training") return card.status === "training" || card.status === "retraining";
  if (state === "waiting") return card.awaits_approval !== undefined || card.suspended === true;
  return card.status === state;
}

const COMPARE = {
  activity: (a, b) => (b.updated ?? "").localeCompare(a.updated ?? "") || a.name.localeCompare(b.name),
  name: (a, b) => a.name.localeCompare(b.name) || a.classifier_id.localeCompare(b.classifier_id),
  accuracy: (a, b) => (a.accuracy?.value ?? 2) - (b.accuracy?.value ?? 2) || a.name.localeCompare(b.name),
};
