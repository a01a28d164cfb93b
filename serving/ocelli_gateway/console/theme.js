// Light or dark: as the system says, until the person chooses. Only this choice is kept in the browser.

import { fill, h, icon } from "./dom.js";

const KEY = "ocelli-theme";
const DARK = matchMedia("(prefers-color-scheme: dark)");

/** Apply the kept choice, and return the button that changes it. */
export function themeButton() {
  const button = h("button", { type: "button", class: "plain icon-button", onclick: change });
  let chosen = read();
  apply();
  DARK.addEventListener("change", apply);
  return button;

  function isDark() {
    return chosen === undefined ? DARK.matches : chosen === "dark";
  }

  function change() {
    chosen = isDark() ? "light" : "dark";
    try {
      localStorage.setItem(KEY, chosen);
    } catch {
      // Storage may be switched off: then the choice lasts as long as the page.
    }
    apply();
  }

  function apply() {
    if (chosen === undefined) delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = chosen;
    button.setAttribute("aria-label", isDark() ? "Use light colours" : "Use dark colours");
    fill(button, icon(isDark() ? "sun" : "moon"));
  }
}

function read() {
  try {
    const kept = localStorage.getItem(KEY);
    return kept === "light" || kept === "dark" ? kept : undefined;
  } catch {
    return undefined;
  }
}
