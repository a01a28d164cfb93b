// Thumbnails of one revision, fetched in batches when an image comes near the window, as blob: URLs that are revoked.
// It must not know what surrounds an image.

const BATCH = 60;
const MARGIN = "600px";

export class Thumbnails {
  // `load(digests)` returns {digest: base64 of a JPEG file}; missing ones are left out.
  constructor(load) {
    this.load = load;
    this.urls = new Map();
    this.waiting = new Map();
    this.closed = false;
    this.scheduled = false;
    this.observer = new IntersectionObserver((entries) => this.onVisible(entries), { rootMargin: MARGIN });
  }

  // Show the thumbnail of `digest` in an <img> as soon as it comes near the window.
  show(image, digest) {
    const url = this.urls.get(digest);
    if (url) {
      image.src = url;
      return;
    }
    image.dataset.digest = digest;
    this.observer.observe(image);
  }

  onVisible(entries) {
    for (const { isIntersecting, target } of entries) {
      if (isIntersecting) {
        this.observer.unobserve(target);
        const digest = target.dataset.digest;
        this.waiting.set(digest, [...(this.waiting.get(digest) ?? []), target]);
      }
    }
    if (this.waiting.size && !this.scheduled) {
      this.scheduled = true;
      // One turn later: the images of one screen become one request.
      setTimeout(() => this.fetchWaiting(), 0);
    }
  }

  async fetchWaiting() {
    while (this.waiting.size && !this.closed) {
      const batch = new Map([...this.waiting].slice(0, BATCH));
      batch.forEach((_images, digest) => this.waiting.delete(digest));
      await this.fetchBatch(batch);
    }
    this.scheduled = false;
  }

  async fetchBatch(batch) {
    const missing = [...batch.keys()].filter((digest) => !this.urls.has(digest));
    try {
      const found = missing.length ? await this.load(missing) : {};
      for (const [digest, base64] of Object.entries(found)) {
        // After close() it would never be revoked.
        if (!this.closed && batch.has(digest)) {
          this.urls.set(digest, URL.createObjectURL(decodeJpeg(base64)));
          this.fill(batch.get(digest), digest);
          await pause();
        }
      }
    } catch {
      // The grid is useful without thumbnails; the next view of the page asks again.
    }
    batch.forEach((images, digest) => this.fill(images, digest));
  }

  fill(images, digest) {
    for (const image of images) {
      if (!this.urls.has(digest)) {
        image.dataset.missing = "true";
      } else if (!image.src) {
        image.src = this.urls.get(digest);
      }
    }
  }

  // Call it when the page is left.
  close() {
    this.closed = true;
    this.observer.disconnect();
    this.urls.forEach((url) => URL.revokeObjectURL(url));
    this.urls.clear();
  }
}

/** Lets the browser scroll in between. */
function pause() {
  return new Promise((resolve) => setTimeout(resolve, 0));
}

/** A JPEG file of the API, which is base64, as a Blob. */
export function decodeJpeg(base64) {
  const bytes = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
  return new Blob([bytes], { type: "image/jpeg" });
}
