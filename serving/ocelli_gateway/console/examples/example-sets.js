// The examples that are about to be sent: sets of images, what of them cannot be used, and what the service would refuse.

import { count } from "../format.js";
import { checkImage } from "./image-check.js";
import { compareText } from "./zip-writer.js";

const LEAST_IMAGES = 10;
const NAME_LIMIT = 128;
const FORBIDDEN = "$*-{}\\|/'\"`[]";
const CONCURRENT_CHECKS = 4;

export class ExampleSets {
  /** `onChange()` is called after each change. */
  constructor(onChange) {
    this._onChange = onChange;
    /** [{key, name, negative, images, places (of images by digest), unusable, duplicates}] */
    this.sets = [];
    this.notices = [];
    this.checked = 0;
    this.toCheck = 0;
    this._numbers = 0;
  }

  get isChecking() {
    return this.checked < this.toCheck;
  }

  get isEmpty() {
    return this.sets.length === 0;
  }

  get images() {
    return this.sets.reduce((sum, set) => sum + set.images.length, 0);
  }

  get bytes() {
    return this.sets.reduce((sum, set) => sum + set.images.reduce((bytes, image) => bytes + image.bytes, 0), 0);
  }

  /** Add what was dropped: see dropped-files.js. A set with a name that there is already gets the files. */
  async add({ sets, notices }, signal) {
    this.notices.push(...notices);
    const work = [];
    for (const { name, negative, files } of sets) {
      const cleaned = cleanName(name);
      let set = this.sets.find((other) => (negative ? other.negative : !other.negative && other.name === cleaned));
      if (set === undefined) {
        this._numbers += 1;
        set = { key: this._numbers, name: cleaned, negative, images: [], places: new Map(), unusable: [], duplicates: [] };
        this.sets.push(set);
      }
      for (const file of files) work.push({ set, file });
    }
    this.toCheck += work.length;
    this._onChange();
    const next = work[Symbol.iterator]();
    await Promise.all(Array.from({ length: CONCURRENT_CHECKS }, () => this._check(next, signal)));
    if (this.checked === this.toCheck) this.checked = this.toCheck = 0;
    this._onChange();
  }

  remove(key) {
    this.sets = this.sets.filter((set) => set.key !== key);
    this._onChange();
  }

  rename(key, name) {
    this.sets.find((set) => set.key === key).name = name;
    this._onChange();
  }

  setNegative(key, negative) {
    this.sets.find((set) => set.key === key).negative = negative;
    this._onChange();
  }

  /** Images that are in several sets: [[{set, image}…]…]. At most one of them can be right. */
  conflicts() {
    const places = new Map();
    for (const set of this.sets) {
      for (const image of set.images) {
        if (!places.has(image.sha256)) places.set(image.sha256, []);
        places.get(image.sha256).push({ set, image });
      }
    }
    return [...places.values()].filter((found) => found.length > 1);
  }

  /** Why a set cannot be sent, each with its remedy. `known`: names of classes that the classifier has already. */
  problemsOf(set, known = []) {
    const problems = [];
    if (!set.negative) {
      if (set.name.trim() === "") problems.push("Give the class a name.");
      else if (set.name.length > NAME_LIMIT) problems.push(`The name has ${set.name.length} characters; at most ${NAME_LIMIT} are allowed.`);
      const bad = [...set.name].find(isForbidden);
      if (bad !== undefined) problems.push(`The name contains ${JSON.stringify(bad)}, which is not allowed.`);
      if (this.sets.some((other) => other !== set && !other.negative && other.name === set.name)) {
        problems.push("Another class has this name.");
      }
    } else if (this.sets.some((other) => other !== set && other.negative)) {
      problems.push("Negative examples are one set; remove one of the two.");
    }
    const has = set.images.length;
    if (has < LEAST_IMAGES && !this.isChecking && !known.includes(set.name)) {
      problems.push(`${count(has, "image")}: at least ${LEAST_IMAGES} are needed, so add ${LEAST_IMAGES - has}.`);
    }
    return problems;
  }

  async _check(next, signal) {
    for (const { set, file } of next) {
      if (signal?.aborted) return;
      place(set, await checkImage(file));
      this.checked += 1;
      this._onChange();
    }
  }
}

/** Put a checked file into its set: of files with the same content, the first by name is kept. */
function place(set, file) {
  if (file.reason !== undefined) {
    set.unusable.push(file);
    return;
  }
  const same = set.places.get(file.sha256);
  if (same === undefined) {
    set.places.set(file.sha256, set.images.length);
    set.images.push(file);
  } else if (compareText(file.name, set.images[same].name) < 0) {
    set.duplicates.push(set.images[same]);
    set.images[same] = file;
  } else set.duplicates.push(file);
}

/** A name that the service allows, made of the name of a folder. */
function cleanName(name) {
  return [...name].map((character) => (isForbidden(character) ? "_" : character)).join("").slice(0, NAME_LIMIT).trim();
}

function isForbidden(character) {
  const code = character.codePointAt(0);
  return FORBIDDEN.includes(character) || code < 32 || (code >= 127 && code < 160);
}
