// How far the sending of examples is, and what is left.

import { fill, h } from "../dom.js";
import { bytes, count, duration } from "../format.js";
import { notice } from "../notice.js";

/** An element with `draw(state)`: see sending.js. `onTryNow` and `onStop` are its buttons. */
export function buildSendingView({ onTryNow, onStop }) {
  const title = h("h2", { tabindex: "-1" });
  const bar = h("progress", { max: 1, value: 0, "aria-label": "Examples sent" });
  const left = h("p", { class: "muted" });
  const spoken = h("p", { class: "hidden-text", role: "status" });
  const waiting = h("div", { "aria-live": "polite" });
  const stop = h("button", { type: "button", onclick: onStop }, "Stop");
  const element = h("section", { class: "card sending" }, title, bar, left, spoken, waiting, h("div", { class: "actions" }, stop));
  let ticking;

  function draw(state) {
    clearInterval(ticking);
    const packing = state.step === "packing";
    fill(title, { packing: "Packing the images", sending: "Sending the images", sent: "All images are stored" }[state.step]);
    bar.max = state.bytes || 1;
    bar.value = packing ? state.packed : state.sentBytes;
    setText(left, packing ? `${count(state.zips, "zip")}, ${bytes(state.bytes)}` : describeLeft(state));
    // Not the bytes: they change too often to be read aloud.
    setText(spoken, packing ? "" : `${state.sentZips} of ${count(state.zips, "zip")} stored.`);
    if (state.waitUntil === undefined) return fill(waiting);
    const seconds = h("span", {});
    const tick = () => setText(seconds, `Trying again in ${duration((state.waitUntil - Date.now()) / 1000).replaceAll(" ", "\u00a0")}.`);
    tick();
    ticking = setInterval(tick, 1000);
    const again = h("button", { type: "button", class: "small", onclick: onTryNow }, "Try now");
    return fill(waiting, notice("warning", [`${state.waitReason} What is already stored is kept. `, seconds], again));
  }

  return { element, draw, focus: () => title.focus(), close: () => clearInterval(ticking) };
}

function describeLeft(state) {
  const zips = state.zips - state.sentZips;
  const stored = state.stored > 0 ? ` ${count(state.stored, "zip")} of them ${state.stored === 1 ? "was" : "were"} stored before.` : "";
  if (zips === 0) return `${count(state.zips, "zip")} stored.${stored}`;
  return `${state.sentZips} of ${count(state.zips, "zip")} stored; ${bytes(state.bytes - state.sentBytes)} left to send.${stored}`;
}

function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}
