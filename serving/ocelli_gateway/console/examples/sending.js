// Sending examples: zip by zip, each under its digest. What is stored already is not sent again, and a lost connection is waited out.

import { NotReachableError, RefusedError } from "../api.js";
import { digestBlob } from "./checksum.js";
import { buildZip, planZips } from "./zip-writer.js";

const FIRST_DELAY_MS = 1000;
const LONGEST_DELAY_MS = 30000;

/** An image can no longer be read: it was moved, changed or deleted since it was dropped. */
class ChangedFileError extends Error {
  constructor(set) {
    super(`An image of ${titleOf(set)} can no longer be read. It was moved or changed; drop the folder again.`);
    this.name = "ChangedFileError";
  }
}

export class Sending {
  /**
   * `onChange(state)` is called with {step, packed, bytes, sentBytes, zips, sentZips, stored, waitUntil, waitReason}; `step` is "packing", "sending"
   * or "sent".
   */
  constructor(api, signal, onChange) {
    this._api = api;
    this._signal = signal;
    this._onChange = onChange;
    this._wake = undefined;
    this.state = { step: "packing", packed: 0, bytes: 0, sentBytes: 0, zips: 0, sentZips: 0, stored: 0 };
  }

  /**
   * Send all sets of the classifier, and call `onStored()` after each zip. Resolves with {classes: [{class, uploads}],
   * negative_examples: [digest]} for the API.
   */
  async send(classifierId, sets, onStored = () => {}) {
    const zips = await this._pack(sets);
    const path = `/ocelli/v1/uploads/${encodeURIComponent(classifierId)}`;
    const { uploads } = await this.persist(() => this._api.get(path, {}, { signal: this._signal }));
    const stored = new Set(uploads.map((upload) => upload.sha256));
    this._set({ step: "sending", stored: zips.filter((zip) => stored.has(zip.sha256)).length });
    for (const zip of zips) {
      const before = this.state.sentBytes;
      if (!stored.has(zip.sha256)) {
        await this.persist(async () => {
          const onProgress = (bytes) => this._set({ sentBytes: before + Math.min(bytes, zip.blob.size) });
          onProgress(0);
          try {
            await this._api.upload(`${path}/${zip.sha256}`, zip.blob, { onProgress, signal: this._signal });
          } catch (error) {
            // A browser reports a file that it cannot read as a lost connection.
            if (error instanceof NotReachableError && !(await isReadable(zip.blob))) throw new ChangedFileError(zip.set);
            throw error;
          }
        });
        stored.add(zip.sha256);
      }
      this._set({ sentBytes: before + zip.blob.size, sentZips: this.state.sentZips + 1 });
      onStored();
    }
    this._set({ step: "sent" });
    return describe(sets, zips);
  }

  /** Do not wait any longer before the next try. */
  tryNow() {
    this._wake?.();
  }

  async _pack(sets) {
    const zips = [];
    const plans = sets.flatMap((set) => planZips(set.images).map((images) => ({ set, images })));
    this._set({ zips: plans.length, bytes: sets.reduce((sum, set) => sum + set.images.reduce((bytes, image) => bytes + image.bytes, 0), 0) });
    for (const { set, images } of plans) {
      const done = this.state.packed;
      try {
        const blob = await buildZip(images);
        const onProgress = (bytes) => this._set({ packed: done + bytes });
        zips.push({ set, blob, sha256: await digestBlob(blob, { signal: this._signal, onProgress }) });
      } catch (error) {
        if (error.name === "NotReadableError" || error.name === "NotFoundError") throw new ChangedFileError(set);
        throw error;
      }
    }
    this._set({ bytes: zips.reduce((sum, zip) => sum + zip.blob.size, 0) });
    return zips;
  }

  /** Run a request until it is answered: again after a lost connection or a refusal that passes, with longer and longer waits. */
  async persist(request) {
    let delay = FIRST_DELAY_MS;
    for (;;) {
      try {
        const answer = await request();
        this._set({ waitUntil: undefined, waitReason: undefined });
        return answer;
      } catch (error) {
        if (!isPassing(error)) throw error;
        const milliseconds = Math.max(delay, (error.retryAfter ?? 0) * 1000);
        this._set({ waitUntil: Date.now() + milliseconds, waitReason: error.message });
        await this._wait(milliseconds);
        this._set({ waitUntil: undefined });
        delay = Math.min(delay * 2, LONGEST_DELAY_MS);
      }
    }
  }

  _wait(milliseconds) {
    return new Promise((resolve, reject) => {
      const timer = setTimeout(done, milliseconds);
      const signal = this._signal;
      this._wake = done;
      addEventListener("online", done);
      signal.addEventListener("abort", done);
      function done() {
        clearTimeout(timer);
        removeEventListener("online", done);
        signal.removeEventListener("abort", done);
        if (signal.aborted) reject(new DOMException("left", "AbortError"));
        else resolve();
      }
    });
  }

  _set(values) {
    Object.assign(this.state, values);
    this._onChange(this.state);
  }
}

function isPassing(error) {
  return error instanceof NotReachableError || (error instanceof RefusedError && error.mayPass);
}

async function isReadable(blob) {
  try {
    await digestBlob(blob);
    return true;
  } catch {
    return false;
  }
}

function describe(sets, zips) {
  const uploadsOf = (set) => zips.filter((zip) => zip.set === set).map((zip) => zip.sha256);
  const described = {};
  const classes = sets.filter((set) => !set.negative).map((set) => ({ class: set.name.trim(), uploads: uploadsOf(set) }));
  const negative = sets.filter((set) => set.negative).flatMap(uploadsOf);
  if (classes.length > 0) described.classes = classes;
  if (negative.length > 0) described.negative_examples = negative;
  return described;
}

function titleOf(set) {
  return set.negative ? "the negative examples" : `the class "${set.name}"`;
}
