// The classifiers, live: a list, kept current by the service's events. One stream serves all pages of a window.

import { isAborted, NotReachableError } from "./api.js";
import { StreamPlaces, USES } from "./stream-places.js";

const FIRST_DELAY_MS = 500;
const LONGEST_DELAY_MS = 15000;
/** The service sends a comment every 15 s: a stream that is silent for longer is dead. */
const SILENT_MS = 40000;
/** How often the list is read where other windows have the streams. */
export const POLL_SECONDS = 5;

export class LiveClassifiers {
  constructor(api) {
    this._api = api;
    this._listeners = new Set();
    this._stop = undefined;
    this._places = new StreamPlaces();
    /** Cards by id; undefined until the first list has come. */
    this.cards = undefined;
    /** "live", "connecting", "polled": other windows have the streams, or "broken": then `error` says why. */
    this.state = "connecting";
    this.error = undefined;
  }

  /** Call `listener({id})` for each change of one classifier, `listener({isList})` after a new list or state. Returns its end. */
  subscribe(listener) {
    this._listeners.add(listener);
    if (this._stop === undefined) {
      this._stop = new AbortController();
      this._run(this._stop.signal);
    }
    return () => this._listeners.delete(listener);
  }

  /** Forget everything: somebody logged out. */
  close() {
    this._stop?.abort();
    this._stop = undefined;
    this._listeners.clear();
    this.cards = undefined;
    this.state = "connecting";
  }

  async _run(signal) {
    let delay = FIRST_DELAY_MS;
    while (!signal.aborted) {
      await untilVisible(signal);
      if (signal.aborted) return;
      const began = Date.now();
      let asked = 0;
      try {
        const isLost = await this._follow(signal);
        if (isLost) await this._poll(signal);
        // Somebody logged out: a newer run may have set a state of its own.
        if (signal.aborted) return;
        this._set("connecting");
        if (isLost) continue;
      } catch (error) {
        if (isAborted(error) && signal.aborted) return;
        if (document.hidden) continue;
        this._set("broken", error);
        asked = (error.retryAfter ?? 0) * 1000;
        // Proxies may not pass streams on: the list is then as new as the last try.
        await this._list(signal).catch(() => {});
      }
      if (signal.aborted) return;
      if (Date.now() - began > LONGEST_DELAY_MS) delay = FIRST_DELAY_MS;
      await sleep(Math.max(asked, delay * (0.75 + Math.random() / 2)), signal);
      delay = Math.min(delay * 2, LONGEST_DELAY_MS);
    }
  }

  /**
   * One connection: the list is read once the stream is open, so that no change is missed in between. Resolves with whether other
   * windows have all streams now.
   */
  async _follow(signal) {
    const connection = new AbortController();
    const abort = () => connection.abort();
    let isLost = false;
    this._places.take(() => {
      isLost = true;
      abort();
    });
    signal.addEventListener("abort", abort);
    document.addEventListener("visibilitychange", abort, { signal: connection.signal });
    let silence = setTimeout(abort, SILENT_MS);
    try {
      const response = await this._api.request("GET", "/ocelli/v1/events", { signal: connection.signal });
      const missed = [];
      let listed = false;
      const list = this._list(connection.signal).then(() => {
        listed = true;
        for (const event of missed) this._apply(event);
        this._set("live");
      });
      // A failed list ends the connection; the error is raised below.
      list.catch(abort);
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      let text = "";
      for (;;) {
        const { value, done } = await reader.read().catch(async (error) => {
          await list;
          // However a stream breaks, the service could not be reached any longer.
          throw signal.aborted ? error : new NotReachableError();
        });
        if (done) {
          // A stream may end at once, where the service itself has lost its watch: the list is then all there is.
          await list;
          return false;
        }
        clearTimeout(silence);
        silence = setTimeout(abort, SILENT_MS);
        const blocks = (text + value).replaceAll("\r\n", "\n").split("\n\n");
        text = blocks.pop();
        for (const event of blocks.map(parseEvent)) {
          if (event.type === "expired") return false;
          if (listed) this._apply(event);
          else missed.push(event);
        }
      }
    } catch (error) {
      // The stream was given up, which looks like a broken one.
      if (!isLost) throw error;
      return true;
    } finally {
      clearTimeout(silence);
      this._places.leave();
      connection.abort();
      signal.removeEventListener("abort", abort);
    }
  }

  /** Read the list again and again, until there is a stream for this window, it is used, or it is hidden. */
  async _poll(signal) {
    const use = new AbortController();
    const used = () => use.abort();
    for (const type of USES) addEventListener(type, used, { signal: use.signal });
    signal.addEventListener("abort", used, { signal: use.signal });
    while (!signal.aborted && !use.signal.aborted && !document.hidden) {
      try {
        await this._list(signal);
        this._set("polled");
      } catch (error) {
        if (!signal.aborted) this._set("broken", error);
      }
      await sleep(POLL_SECONDS * 1000, use.signal);
      if (await this._places.hasFree()) break;
    }
    use.abort();
  }

  async _list(signal) {
    const { classifiers } = await this._api.get("/ocelli/v1/classifiers", {}, { signal });
    this.cards = new Map(classifiers.map((card) => [card.classifier_id, card]));
    this._notify({ isList: true });
  }

  _apply(event) {
    const id = event.data?.classifier_id;
    if (event.type === "classifier") this.cards.set(id, event.data);
    else if (event.type === "deleted") this.cards.delete(id);
    else return;
    this._notify({ id });
  }

  _set(state, error) {
    this.state = state;
    this.error = error;
    this._notify({});
  }

  _notify(change) {
    for (const listener of [...this._listeners]) listener(change);
  }
}

/** Resolves earlier once the signal is aborted. */
function sleep(milliseconds, signal) {
  return new Promise((resolve) => {
    const timer = setTimeout(done, milliseconds);
    signal.addEventListener("abort", done);
    if (signal.aborted) done();
    function done() {
      clearTimeout(timer);
      signal.removeEventListener("abort", done);
      resolve();
    }
  });
}

/** Hidden tabs need no stream. */
function untilVisible(signal) {
  if (!document.hidden) return undefined;
  return new Promise((resolve) => {
    document.addEventListener("visibilitychange", resolve, { once: true });
    signal.addEventListener("abort", resolve, { once: true });
  });
}

/** One block of a stream of events. Comments have no type. */
function parseEvent(block) {
  let type;
  const data = [];
  for (const line of block.split("\n")) {
    if (line.startsWith("event:")) type = line.slice(6).trim();
    else if (line.startsWith("data:")) data.push(line.slice(5).trim());
  }
  return { type, data: data.length > 0 ? JSON.parse(data.join("\n")) : undefined };
}
