// Which windows of this browser follow the events. Browsers open six connections to a host over all windows and tabs, and a stream
// of events holds one as long as it lasts: with six streams no window could send anything. So the windows used last have one each.

const PLACES = 3;
const ANSWER_MS = 200;

export class StreamPlaces {
  constructor() {
    this._id = `${Math.random()}`;
    this._since = undefined;
    this._onLost = undefined;
    /** When each of the other windows took its place. */
    this._others = new Map();
    this._channel = new BroadcastChannel("ocelli-streams");
    this._channel.addEventListener("message", (event) => this._hear(event.data));
  }

  /** Take a place. `onLost()` is called once other windows, which took theirs later, have all of them. */
  take(onLost) {
    this._onLost = onLost;
    this._since = Date.now();
    this._others.clear();
    this._say("took");
  }

  leave() {
    this._since = undefined;
  }

  /** Whether there is a place that no window has. */
  async hasFree() {
    this._others.clear();
    this._say("asks");
    await new Promise((resolve) => setTimeout(resolve, ANSWER_MS));
    return this._others.size < PLACES;
  }

  _hear({ kind, id, since }) {
    // Those that were closed meanwhile do not answer.
    if (kind === "took") this._others.clear();
    if (kind !== "asks") this._others.set(id, since);
    if (this._since === undefined) return;
    if (kind !== "has") this._say("has");
    const newer = [...this._others.values()].filter((other) => other > this._since);
    if (newer.length < PLACES) return;
    this.leave();
    this._onLost();
  }

  _say(kind) {
    this._channel.postMessage({ kind, id: this._id, since: this._since });
  }
}
