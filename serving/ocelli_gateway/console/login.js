// Logging in: the first page, and the dialog over a page whose token has expired.

import { openDialog } from "./dialog.js";
import { fill, h, icon, newId, svg } from "./dom.js";
import { errorNotice, notice } from "./notice.js";

/** The page before anybody has logged in. Calls `done` afterwards. */
export function showLogIn(container, session, done) {
  const form = buildForm(session, done);
  fill(
    container,
    h(
      "div",
      { class: "login" },
      h("div", { class: "login-mark" }, mark()),
      h("h1", { tabindex: "-1" }, "Ocelli"),
      h("p", { class: "muted" }, "Teach your cluster to see. Log in with your user name, or with an API key of your team."),
      form,
    ),
  );
  form.querySelector("input:not([type=radio])").focus();
}

/** The dialog over a page. Resolves once the same user has logged in again. */
export function askAgain(session) {
  return openDialog(
    "Log in again",
    (close) => [
      h("p", {}, "Your log-in has expired. Everything on this page is kept."),
      buildForm(session, () => close(true), session.user),
    ],
    { needed: true },
  );
}

/** The mark of the product, for the page of the log-in. */
export function mark() {
  return svg(
    "svg",
    { viewBox: "0 0 32 32", "aria-hidden": "true", class: "mark" },
    svg("rect", { width: 32, height: 32, rx: 9, class: "mark-ground" }),
    svg("circle", { cx: 16, cy: 10.5, r: 4.2, fill: "#fff" }),
    svg("circle", { cx: 10, cy: 20.5, r: 4.2, fill: "#fff", "fill-opacity": 0.82 }),
    svg("circle", { cx: 22, cy: 20.5, r: 4.2, fill: "#ffc861" }),
  );
}

function buildForm(session, done, user = "") {
  const name = newId("way");
  const userInput = h("input", { id: newId("user"), value: user, autocomplete: "username", required: true, autocapitalize: "none" });
  const password = h("input", { id: newId("password"), type: "password", autocomplete: "current-password", required: true });
  const key = h("input", { id: newId("key"), type: "password", autocomplete: "off", required: true, spellcheck: "false" });
  const problem = h("div", { role: "status" });
  const button = h("button", { class: "primary wide", type: "submit" }, "Log in");
  const byPassword = h("div", {}, field("User name", userInput), field("Password", password));
  const byKey = h("div", { hidden: true }, field("API key", key));
  const choose = (withKey) => {
    byPassword.hidden = withKey;
    byKey.hidden = !withKey;
    for (const input of [userInput, password]) input.disabled = withKey;
    key.disabled = !withKey;
  };
  choose(false);
  return h(
    "form",
    {
      class: "login-form",
      onsubmit: async (event) => {
        event.preventDefault();
        button.disabled = true;
        fill(problem);
        const credentials = key.disabled ? { user: userInput.value, password: password.value } : { apiKey: key.value };
        try {
          await session.logIn(credentials);
          password.value = key.value = "";
          done();
        } catch (error) {
          fill(problem, isWrong(error) ? notice("bad", wrongText(key.disabled)) : errorNotice(error));
          button.disabled = false;
          (key.disabled ? password : key).focus();
        }
      },
    },
    h(
      "fieldset",
      { class: "segments" },
      h("legend", { class: "hidden-text" }, "Log in with"),
      segment(name, "Password", "user", true, () => choose(false)),
      segment(name, "API key", "key", false, () => choose(true)),
    ),
    byPassword,
    byKey,
    problem,
    button,
  );
}

function segment(name, text, symbol, checked, chosen) {
  const id = newId("segment");
  return [
    h("input", { type: "radio", name, id, checked, onchange: chosen, class: "hidden-text" }),
    h("label", { for: id }, icon(symbol), text),
  ];
}

function field(text, input) {
  return h("div", { class: "field" }, h("label", { for: input.id }, text), input);
}

function isWrong(error) {
  return error.status === 401 || error.body?.errorCode !== undefined;
}

function wrongText(withPassword) {
  return withPassword
    ? "The user name or the password is wrong. Ask the operator of this installation if you have none."
    : "The service does not know this API key. Check that you copied all of it.";
}
