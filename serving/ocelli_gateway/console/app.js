// The frame of the console: log-in, header, and the page that the address names.

import { Api, isAborted } from "./api.js";
import { confirm } from "./dialog.js";
import { fill, h } from "./dom.js";
import { LiveClassifiers } from "./events.js";
import { askAgain, mark, showLogIn } from "./login.js";
import { errorNotice, notice } from "./notice.js";
import { show as showClassifiers } from "./pages/classifiers.js";
import { buildHash, parseHash, replaceQuery } from "./router.js";
import { Session } from "./session.js";
import { themeButton } from "./theme.js";

/** Pages by the first part of the address; a classifier has pages of its own, see classifier.js. */
const PAGES = { classifiers: showClassifiers, new: later(() => import("./pages/new.js")) };
const showClassifier = later(() => import("./classifier.js"));
const READ_AHEAD_MS = 1000;
const HOME = buildHash(["classifiers"]);

const session = new Session(askAgain);
const api = new Api(session);
const live = new LiveClassifiers(api);
const page = h("main", { id: "page", tabindex: "-1" });
const status = h("div", { class: "hidden-text", role: "status", "aria-live": "polite" });
const navigation = h("nav", { "aria-label": "Console" });
const account = h("div", { class: "account" });
/** Of the page that is shown: what ends it, and why it must not be left without a question. */
let shown = { controller: new AbortController(), leave: undefined, cleanup: undefined, hash: undefined };

function announce(text) {
  // The same text twice is two messages.
  status.textContent = "";
  setTimeout(() => (status.textContent = text), 50);
}

function build() {
  document.body.append(
    h("a", { class: "skip", href: "#page", onclick: skip }, "Skip to the content"),
    h(
      "header",
      { class: "top" },
      h("a", { class: "brand", href: HOME }, mark(), h("span", {}, "Ocelli")),
      navigation,
      h("div", { class: "spring" }),
      themeButton(),
      account,
    ),
    page,
    status,
  );
  addEventListener("hashchange", () => navigate());
  addEventListener("beforeunload", (event) => shown.leave?.() && event.preventDefault());
  navigate();
}

function skip(event) {
  event.preventDefault();
  page.focus();
}

async function navigate() {
  const hash = location.hash;
  if (hash === shown.hash) return;
  const question = shown.leave?.();
  if (question) {
    history.replaceState(null, "", shown.hash);
    if (!(await confirm("Leave this page?", { text: question, action: "Leave" }))) return;
    history.pushState(null, "", hash);
  }
  await showPage();
}

async function showPage() {
  shown.controller.abort();
  shown.cleanup?.();
  const current = { controller: new AbortController(), leave: undefined, cleanup: undefined, hash: location.hash };
  shown = current;
  buildHeader();
  const container = h("div", { class: "page" });
  fill(page, container);
  if (!session.known) {
    document.title = "Log in – Ocelli";
    showLogIn(container, session, showPage);
    return;
  }
  const address = parseHash(location.hash);
  const [first = "classifiers", ...rest] = address?.segments ?? ["unknown"];
  const show = first === "classifiers" && rest.length > 0 ? showClassifier : PAGES[first];
  if (!Object.hasOwn(PAGES, first)) {
    fill(container, heading("Not found"), notice("warning", "There is no such page.", h("a", { href: HOME }, "All classifiers")));
    focusHeading(container);
    return;
  }
  try {
    const cleanup = await show(container, buildContext(current, address.query), ...rest);
    if (current.controller.signal.aborted) cleanup?.();
    else current.cleanup = cleanup;
  } catch (error) {
    if (isAborted(error) || current.controller.signal.aborted) return;
    fill(container, heading("This page cannot be shown"), errorNotice(error, showPage));
  }
  if (!current.controller.signal.aborted) focusHeading(container);
}

/** What every page gets. The pages of a classifier get more, see classifier.js. */
function buildContext(current, query) {
  return {
    api,
    session,
    live,
    query,
    announce,
    signal: current.controller.signal,
    setQuery: (changes) => {
      replaceQuery(changes);
      current.hash = location.hash;
    },
    go: (path) => {
      location.hash = path.startsWith("#") ? path : `#${path}`;
    },
    /** `ask()` returns the question to ask before the page is left, or a false value. */
    onLeave: (ask) => {
      current.leave = ask;
    },
  };
}

function focusHeading(container) {
  const title = container.querySelector("h1");
  if (title === null) return;
  document.title = `${container.dataset.title ?? title.textContent} – Ocelli`;
  title.tabIndex = -1;
  // What the person has chosen meanwhile keeps the focus.
  if (!container.contains(document.activeElement)) title.focus({ preventScroll: true });
  scrollTo(0, 0);
}

function heading(text) {
  return h("h1", { tabindex: "-1" }, text);
}

function buildHeader() {
  fill(navigation);
  fill(account);
  if (!session.known) return;
  const here = parseHash(location.hash)?.segments[0] ?? "classifiers";
  fill(
    navigation,
    link("Classifiers", HOME, here === "classifiers"),
    link("New", buildHash(["new"]), here === "new"),
  );
  fill(
    account,
    h("span", { class: "who" }, session.user, h("span", { class: "muted" }, ` in ${session.namespace}`)),
    h("button", { type: "button", class: "plain", onclick: logOut }, "Log out"),
  );
}

function link(text, href, current) {
  return h("a", { href, "aria-current": current ? "page" : undefined }, text);
}

async function logOut() {
  const question = shown.leave?.();
  if (question && !(await confirm("Log out?", { text: question, action: "Log out" }))) return;
  live.close();
  session.logOut();
  await showPage();
}

/** A page whose modules are not needed for the first paint. */
function later(load) {
  return async (...rest) => (await load()).show(...rest);
}

build();
// Read ahead once the first page is shown, so that the others open at once.
setTimeout(() => [import("./classifier.js"), import("./pages/new.js")], READ_AHEAD_MS);
