// Which windows of this browser follow the events. Browsers open six connections to a host over all windows and tabs, and a stream
// of events holds one as long as it lasts: with six streams no window could send anything. So the windows used last have one each.

const PLACES = 3;
const ANSWER_MS = 200;
export const USES = ["focus", "pointerdown", "keydown"];

export class StreamPlaces {
  constructor() {
    this._id = `${Math.random()}`;
    this._hasPlace = false;
    this._onLost = undefined;
    this._usedAt = Date.now();
    for (const use of USES) addEventListener(use, () => { this._usedAt = Date.now(); }, { capture: true });
    /** When each of the other windows that have a place was used last. */
    this._others = new Map();
    this._channel = new BroadcastChannel("ocelli-streams");
    this._channel.addEventListener("message", (event) => this._hear(event.data));
  }

  /** Take a place. `onLost()` is called once other windows, which were used later, have all of them. */
  take(onLost) {
    this._onLost = onLost;
    this._hasPlace = true;
    this._others.clear();
    this._say("took");
  }

  leave() {
    this._hasPlace = false;
  }

  /** Whether there is a place that no window has. */
  async hasFree() {
    this._others.clear();
    this._say("asks");
    await new Promise((resolve) => setTimeout(resolve, ANSWER_MS));
    return this._others.size < PLACES;
  }

  _hear({ kind, id, usedAt }) {
    // Those that were closed meanwhile do not answer.
    if (kind === "took") this._others.clear();
    if (kind !== "asks") this._others.set(id, usedAt);
    if (!this._hasPlace) return;
    if (kind !== "has") this._say("has");
    const newer = [...this._others.values()].filter((other) => other > this._usedAt);
    if (newer.length < PLACES) return;
    this.leave();
    this._onLost();
  }

  _say(kind) {
    this._channel.postMessage({ kind, id: this._id, usedAt: this._usedAt });
  }
}
