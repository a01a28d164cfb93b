// Corrections that a person has chosen and not yet applied. They stay in this browser until they are applied or discarded, so
// that a closed tab costs nothing. It must not know the page.

const PREFIX = "ocelli.corrections.";
export const DROP = "";
export const NO_CORRECTION = null;

export class PendingCorrections {
  // `owner` keeps those of several users and classifiers apart. `storage` is that of the browser.
  constructor(owner, storage) {
    this.key = PREFIX + owner;
    this.storage = storage;
    this.steps = readSteps(storage, this.key);
    this.listeners = new Set();
  }

  // Class name, DROP or NO_CORRECTION; undefined if nothing was chosen for the image.
  of(image) {
    return this.byImage().get(image);
  }

  get size() {
    return this.byImage().size;
  }

  byImage() {
    const found = new Map();
    for (const step of this.steps) {
      for (const image of step.images) {
        found.set(image, step.class);
      }
    }
    return found;
  }

  // The body's list of the API.
  toJson() {
    return [...this.byImage()].map(([image, className]) => ({ image, class: className }));
  }

  add(images, className) {
    this.change([...this.steps, { images: [...images], class: className }]);
  }

  undo() {
    const last = this.steps.at(-1);
    this.change(this.steps.slice(0, -1));
    return last;
  }

  clear() {
    this.change([]);
  }

  listen(listener) {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }

  change(steps) {
    this.steps = steps;
    try {
      if (steps.length) {
        this.storage.setItem(this.key, JSON.stringify(steps));
      } else {
        this.storage.removeItem(this.key);
      }
    } catch {
      // A full or forbidden storage: they are kept while the page is open.
    }
    this.listeners.forEach((listener) => listener());
  }
}

function readSteps(storage, key) {
  try {
    const steps = JSON.parse(storage.getItem(key) ?? "[]");
    return steps.filter((step) => Array.isArray(step.images) && (step.class === null || typeof step.class === "string"));
  } catch {
    return [];
  }
}

// "2 images move to husky, 1 is dropped"
export function describeCorrections(corrections) {
  const counts = new Map();
  for (const { class: className } of corrections) {
    counts.set(className, (counts.get(className) ?? 0) + 1);
  }
  return [...counts].map(([className, count]) => describeCount(className, count)).join(", ");
}

function describeCount(className, count) {
  const [images, go, are, lose] =
    count === 1 ? ["1 image", "moves", "is", "loses its correction"] : [`${count} images`, "move", "are", "lose their corrections"];
  if (className === DROP) {
    return `${images} ${are} dropped`;
  }
  return className === NO_CORRECTION ? `${images} ${lose}` : `${images} ${go} to “${className}”`;
}
