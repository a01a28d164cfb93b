// A few images of each classifier in the list. They are asked for once a row is seen, a few rows at a time, and once a revision.

import { h } from "./dom.js";
import { RevisionApi } from "./quality/revision-api.js";
import { decodeJpeg } from "./quality/thumbnails.js";

const IMAGES = 4;
const CONCURRENT_ROWS = 3;

export class RowImages {
  constructor(api, signal) {
    this._api = api;
    this._signal = signal;
    this._found = new Map();
    this._rows = new Map();
    this._waiting = [];
    this._running = 0;
    this._observer = new IntersectionObserver((entries) => this._see(entries), { rootMargin: "200px" });
  }

  /** The place for the images of a card in its row. */
  build(card) {
    const place = h("div", { class: "row-images", "aria-hidden": "true" });
    if (card.served_revision === undefined) return place;
    const found = this._found.get(keyOf(card));
    if (found !== undefined) draw(place, found);
    else {
      this._rows.set(place, card);
      this._observer.observe(place);
    }
    return place;
  }

  close() {
    this._observer.disconnect();
    for (const addresses of this._found.values()) for (const address of addresses) URL.revokeObjectURL(address);
  }

  _see(entries) {
    for (const { isIntersecting, target } of entries) {
      if (!isIntersecting) continue;
      this._observer.unobserve(target);
      this._waiting.push(target);
    }
    while (this._running < CONCURRENT_ROWS && this._waiting.length > 0) this._load(this._waiting.shift());
  }

  async _load(place) {
    const card = this._rows.get(place);
    this._rows.delete(place);
    this._running += 1;
    try {
      const key = keyOf(card);
      if (!this._found.has(key)) this._found.set(key, await this._ask(card));
      draw(place, this._found.get(key));
    } catch {
      // A list without images is still a list; revisions of earlier releases have none.
    }
    this._running -= 1;
    this._see([]);
  }

  async _ask(card) {
    const revision = new RevisionApi(this._api, card.classifier_id, card.served_revision, this._signal);
    const { images } = await revision.get("images", { sort: "least_sure", limit: IMAGES });
    const digests = images.filter((image) => image.thumbnail).map((image) => image.image);
    const files = digests.length === 0 ? {} : await revision.thumbnails(digests);
    return Object.values(files).map((text) => URL.createObjectURL(decodeJpeg(text)));
  }
}

function draw(place, addresses) {
  place.replaceChildren(...addresses.map((address) => h("img", { src: address, alt: "" })));
}

function keyOf(card) {
  return `${card.classifier_id} ${card.served_revision}`;
}
