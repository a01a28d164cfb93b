// A new classifier from folders of images.

import { fill, h } from "../dom.js";

export async function show(container) {
  fill(container, h("h1", {}, "New classifier"));
  return () => {};
}
