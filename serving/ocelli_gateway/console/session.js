// Who is logged in. The tokens are in this object only: not in cookies, not in the browser's storage. A reload logs out.

import { NotReachableError, RefusedError, readRefusal, send, SERVICE } from "./api.js";

/** A token is renewed so long before it expires. */
const RENEW_SECONDS = 120;
const PASSWORD_GRANT = "client_credentials";
const API_KEY_GRANT = "urn:ibm:params:oauth:grant-type:apikey";

export class Session {
  /** `askAgain(session)` shows the log-in dialog, and resolves once somebody has logged in. */
  constructor(askAgain) {
    this._askAgain = askAgain;
    this._clear();
  }

  /** Whether somebody has logged in, even if the token has expired since. */
  get known() {
    return this.user !== undefined;
  }

  /**
   * Log in: `{user, password}` or `{apiKey}`. Resolves once `user`, `namespace` and `facts` (the answer of the API) are known.
   * Raises RefusedError (also where another user logs in again) and NotReachableError.
   */
  async logIn(credentials) {
    const tokens = await this._requestTokens(credentials);
    const response = await send(`${SERVICE}/ocelli/v1/session`, { headers: { Authorization: `Bearer ${tokens.access}` } });
    if (!response.ok) throw await readRefusal(response);
    const facts = await response.json();
    if (this.known && facts.user !== this.user) {
      throw new RefusedError(403, { error: `This page belongs to ${this.user}; log out first to log in as another user.` });
    }
    this._tokens = tokens;
    this.user = facts.user;
    this.namespace = facts.namespace;
    this.facts = facts;
  }

  logOut() {
    this._clear();
  }

  /** A token that should be valid. Waits for the log-in dialog if there is none. */
  async token(signal) {
    if (this._tokens && Date.now() < this._tokens.renewAt) return this._tokens.access;
    this._renewal ??= this._renew().finally(() => {
      this._renewal = undefined;
    });
    await this._renewal;
    if (signal?.aborted) throw new DOMException("left", "AbortError");
    return this._tokens.access;
  }

  /** The service does not accept this token any more. */
  refuse(token) {
    if (this._tokens?.access === token) this._tokens = { ...this._tokens, renewAt: 0 };
  }

  async _renew() {
    const refresh = this._tokens?.refresh;
    // A refresh token is used once: if it is refused, only a person can log in again.
    if (this._tokens) this._tokens = { ...this._tokens, refresh: undefined };
    if (refresh !== undefined) {
      try {
        this._tokens = await this._requestTokens({ refresh });
        return;
      } catch (error) {
        if (error instanceof NotReachableError) {
          this._tokens = { ...this._tokens, refresh };
          throw error;
        }
        if (!(error instanceof RefusedError) || error.status >= 500 || error.status === 429) throw error;
      }
    }
    await this._askAgain(this);
  }

  async _requestTokens({ user, password, apiKey, refresh }) {
    const form = new URLSearchParams();
    const headers = {};
    if (refresh !== undefined) {
      form.set("grant_type", "refresh_token");
      form.set("refresh_token", refresh);
    } else if (apiKey !== undefined) {
      form.set("grant_type", API_KEY_GRANT);
      form.set("apikey", apiKey);
    } else {
      form.set("grant_type", PASSWORD_GRANT);
      headers.Authorization = `Basic ${encodeBasic(`${user}:${password}`)}`;
    }
    const response = await send(`${SERVICE}/identity/token`, { method: "POST", headers, body: form });
    if (!response.ok) throw await readRefusal(response);
    const body = await response.json();
    // Renewed early, also where the clocks of this machine and of the service differ.
    const seconds = Math.max(body.expires_in - RENEW_SECONDS, body.expires_in / 2);
    return { access: body.access_token, refresh: body.refresh_token, renewAt: Date.now() + seconds * 1000 };
  }

  _clear() {
    this._tokens = undefined;
    this._renewal = undefined;
    this.user = undefined;
    this.namespace = undefined;
    this.facts = undefined;
  }
}

function encodeBasic(text) {
  return btoa(String.fromCharCode(...new TextEncoder().encode(text)));
}
