// Add images of a classifier.

import { fill, h } from "../dom.js";

export async function show(container) {
  fill(container, h("h2", {}, "Add images"));
  return () => {};
}
