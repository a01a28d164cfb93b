// The API: every request goes through here, with the bearer token and nothing else of this browser. Refusals become errors
// whose message is the sentence that the service gave.

/** The address of the service: the console may be behind a proxy that adds a prefix. */
export const SERVICE = location.origin + location.pathname.slice(0, location.pathname.lastIndexOf("/console"));
const V3_VERSION = "2018-03-19";
/** Answers that another try may change. */
const PASSING = new Set([408, 502, 503, 504]);
const QUOTAS = new Set([413, 429]);

/** The service refused. `status` is the HTTP status, `body` the whole answer, `retryAfter` seconds or undefined. */
export class RefusedError extends Error {
  constructor(status, body, retryAfter) {
    super(body.error ?? body.errorMessage ?? `The service answered with the status ${status}.`);
    this.name = "RefusedError";
    this.status = status;
    this.body = body;
    this.retryAfter = retryAfter;
  }

  /** Whether the same request may succeed later, without a change. */
  get mayPass() {
    // The service says when a rate allows the next request. Proxies also send 429, often without a time.
    if (this.status === 429) return this.retryAfter !== undefined || this.body.error_id === undefined;
    return PASSING.has(this.status);
  }

  /** Whether something has to be deleted before the request can succeed. */
  get isQuota() {
    return QUOTAS.has(this.status) && this.body.error_id === "limit_exceeded" && !this.mayPass;
  }
}

/** No answer at all. */
export class NotReachableError extends Error {
  constructor() {
    super("The service cannot be reached. Check the connection; nothing that you entered is lost.");
    this.name = "NotReachableError";
  }
}

/** Whether an error only says that the page which asked was left. */
export function isAborted(error) {
  return error?.name === "AbortError";
}

export class Api {
  /** `session` gives the token, and renews it: see session.js. */
  constructor(session) {
    this._session = session;
  }

  /** The JSON of an address, such as `/ocelli/v1/classifiers`. `query` may have lists; undefined and null are left out. */
  async get(path, query = {}, options = {}) {
    return (await this.request("GET", path, { query, ...options })).json();
  }

  /** Send JSON, and return the JSON of the answer. */
  async post(path, document = {}, options = {}) {
    const body = JSON.stringify(document);
    return (await this.request("POST", path, { body, type: "application/json", ...options })).json();
  }

  async delete(path, options = {}) {
    return (await this.request("DELETE", path, options)).json();
  }

  /** A file. */
  async download(path, options = {}) {
    return (await this.request("GET", path, options)).blob();
  }

  /**
   * Any request; resolves with a Response whose status is below 400.
   * Raises RefusedError, NotReachableError, or an AbortError once `signal` is aborted.
   */
  async request(method, path, { query = {}, body, type, signal } = {}) {
    for (let attempt = 0; ; attempt += 1) {
      const token = await this._session.token(signal);
      const headers = { Authorization: `Bearer ${token}`, ...(type ? { "Content-Type": type } : {}) };
      const response = await send(addressOf(path, query), { method, headers, body, signal });
      if (response.ok) return response;
      if (response.status === 401 && attempt < 2) {
        // The same request is sent again once the person has logged in: nothing that was entered is lost.
        this._session.refuse(token);
        continue;
      }
      throw await readRefusal(response);
    }
  }

  /**
   * PUT a Blob with progress: `onProgress(bytes)`. Resolves with the JSON of the answer; raises as `request`.
   */
  async upload(path, blob, { onProgress = () => {}, signal, type = "application/zip" } = {}) {
    for (let attempt = 0; ; attempt += 1) {
      const token = await this._session.token(signal);
      try {
        return await put(addressOf(path), blob, { token, type, onProgress, signal });
      } catch (error) {
        if (!(error instanceof RefusedError) || error.status !== 401 || attempt >= 2) throw error;
        this._session.refuse(token);
      }
    }
  }
}

/** The whole address of a path of the API. */
export function addressOf(path, query = {}) {
  const address = new URL(SERVICE + path);
  if (path.startsWith("/v3/")) address.searchParams.set("version", V3_VERSION);
  for (const [name, value] of Object.entries(query)) {
    for (const item of Array.isArray(value) ? value : [value]) {
      if (item !== undefined && item !== null) address.searchParams.append(name, item);
    }
  }
  return address.href;
}

/** fetch without cookies, stored credentials or stored answers. Raises NotReachableError. */
export async function send(address, options) {
  try {
    return await fetch(address, { credentials: "omit", cache: "no-store", redirect: "error", ...options });
  } catch (error) {
    if (options.signal?.aborted) throw new DOMException("left", "AbortError");
    if (error instanceof TypeError) throw new NotReachableError();
    throw error;
  }
}

/** The error of an answer that is a refusal. */
export async function readRefusal(response) {
  const retryAfter = Number(response.headers.get("Retry-After")) || undefined;
  let body = {};
  try {
    body = await response.json();
  } catch {
    // A proxy in between answers with a page of its own.
  }
  return new RefusedError(response.status, body, retryAfter);
}

function put(address, blob, { token, type, onProgress, signal }) {
  return new Promise((resolve, reject) => {
    // fetch reports no progress of what it sends.
    const request = new XMLHttpRequest();
    const abort = () => request.abort();
    request.open("PUT", address);
    request.setRequestHeader("Authorization", `Bearer ${token}`);
    request.setRequestHeader("Content-Type", type);
    request.upload.addEventListener("progress", (event) => onProgress(event.loaded));
    request.addEventListener("error", () => reject(new NotReachableError()));
    request.addEventListener("abort", () => reject(new DOMException("left", "AbortError")));
    request.addEventListener("load", () => {
      const body = parseBody(request.responseText);
      if (request.status < 400) resolve(body);
      else reject(new RefusedError(request.status, body, Number(request.getResponseHeader("Retry-After")) || undefined));
    });
    request.addEventListener("loadend", () => signal?.removeEventListener("abort", abort));
    if (signal?.aborted) return reject(new DOMException("left", "AbortError"));
    signal?.addEventListener("abort", abort);
    request.send(blob);
  });
}

function parseBody(text) {
  try {
    return JSON.parse(text);
  } catch {
    return {};
  }
}
