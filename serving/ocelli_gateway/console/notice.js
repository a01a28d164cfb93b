// Messages on a page: errors in words, and what can be done.

import { h, icon } from "./dom.js";

/** Errors whose message is a sentence for people. */
const FOR_PEOPLE = new Set(["RefusedError", "NotReachableError", "ChangedFileError"]);

/** A box with a message. `kind`: "info", "good", "warning" or "bad". `actions` are buttons or links. */
export function notice(kind, content, ...actions) {
  return h(
    "div",
    { class: `notice ${kind}`, role: kind === "bad" ? "alert" : undefined },
    kind === "info" ? null : icon(kind === "good" ? "check" : "warning"),
    h("div", {}, h("div", {}, content), actions.length > 0 ? h("div", { class: "notice-actions" }, actions) : null),
  );
}

/** The box for an error; `again`, if given, is offered as "Try again". `more` follows the message: texts and links. */
export function errorNotice(error, again, ...more) {
  const wait = error.retryAfter ? ` The service asks to wait ${error.retryAfter} s.` : "";
  const text = FOR_PEOPLE.has(error.name) ? `${error.message}${wait}` : describe(error);
  const content = more.length > 0 ? [h("p", {}, text), h("p", {}, more)] : text;
  return notice("bad", content, ...(again ? [h("button", { type: "button", onclick: again }, "Try again")] : []));
}

function describe(error) {
  // A fault of the console itself; the browser's console has the rest.
  console.error(error);
  return `The console failed: ${error.message}. Reload the page; if it fails again, report it with this message.`;
}
