// The state of a classifier in one word, its accuracy in one line, and who owns it.

import { h } from "./dom.js";
import { count, interval, percent } from "./format.js";

const WORDS = { training: "Training", ready: "Ready", retraining: "Retraining", failed: "Failed" };
/** The stages of a training, as the API names them. */
const STAGES = {
  reading: "Reading the images",
  checking: "Checking the images",
  extracting: "Looking at each image",
  fitting: "Learning the classes",
  evaluating: "Measuring the quality",
  storing: "Storing the result",
};
const KINDS = { training: "busy", ready: "good", retraining: "busy", failed: "bad" };

/** One word for the state of a card: what waits for a person comes first. */
export function stateOf(card) {
  if (card.awaits_approval !== undefined) return { word: "Awaits approval", kind: "warning" };
  if (card.suspended) return { word: "Suspended", kind: "quiet" };
  return { word: WORDS[card.status] ?? card.status, kind: KINDS[card.status] ?? "quiet" };
}

export function statusBadge(card) {
  const { word, kind } = stateOf(card);
  return h("span", { class: `badge ${kind}` }, word);
}

/** What a training is doing, in words. */
export function stageText(stage) {
  return STAGES[stage] ?? stage;
}

/** "95.3 % accurate (87.1 to 96.0 %) on 120 images"; empty where it is not known. */
export function accuracyText(card) {
  const accuracy = card.accuracy;
  if (accuracy?.value === undefined) return "";
  const range = interval(accuracy);
  const images = accuracy.images === undefined ? "" : ` on ${count(accuracy.images, "image")}`;
  return `${percent(accuracy.value)} accurate${range ? ` (${range})` : ""}${images}`;
}
