// Keeps the page's token: over a reload, and fresh.

const KEY = "emitter.token";

/** A token that ends within this time is renewed before it is used. */
const SOON_MS = 5_000;

/** The service does not take the token, and a new one must come from a person. */
export class TokenRefused extends Error {}

/**
 * When a JWT expires, in milliseconds since 1970; null where it does not say.
 * @param {string} token
 * @returns {number | null}
 */
export function expiry(token) {
  try {
    const claims = token.split(".")[1].replaceAll("-", "+").replaceAll("_", "/");
    const { exp } = JSON.parse(atob(claims));
    return typeof exp === "number" ? exp * 1000 : null;
  } catch {
    return null;
  }
}

/** The token, in this tab's storage where there is one. */
export class TokenKeeper {
  /** @type {string | null} */
  #token = null;
  /** @type {Storage | null} */
  #storage;
  #fetch;
  #now;

  /**
   * @param {object} options
   * @param {Storage | null} options.storage
   * @param {(url: string, init: RequestInit) => Promise<Response>} options.fetch
   * @param {() => number} [options.now]
   */
  constructor({ storage, fetch, now = Date.now }) {
    this.#storage = storage;
    this.#fetch = fetch;
    this.#now = now;
    this.#token = this.#stored();
  }

  /** Whether there is a token at all. */
  get present() {
    return this.#token !== null;
  }

  /** @param {string} token */
  keep(token) {
    this.#token = token;
    try {
      this.#storage?.setItem(KEY, token);
    } catch {
      // Without storage it lasts until the page goes.
    }
  }

  forget() {
    this.#token = null;
    try {
      this.#storage?.removeItem(KEY);
    } catch {
      // There is nothing to remove.
    }
  }

  /**
   * A token that is good for a while.
   * @param {{reason?: string, signal?: AbortSignal}} [asked]
   * @returns {Promise<string>}
   */
  async current({ reason = "connect", signal } = {}) {
    if (this.#token === null) {
      throw new TokenRefused("there is no token");
    }
    const ends = expiry(this.#token) ?? Infinity;
    if (reason === "connect" && ends - this.#now() > SOON_MS) {
      return this.#token;
    }
    return this.#renewed(this.#token, signal);
  }

  /**
   * Keeps a token of another user.
   * @param {string} user
   */
  async switchTo(user) {
    await this.#fetched(await this.current(), `/dev/token?${new URLSearchParams({ user })}`);
  }

  /**
   * @param {string} old
   * @param {AbortSignal} [signal]
   */
  #renewed(old, signal) {
    return this.#fetched(old, "/dev/token", signal);
  }

  /**
   * @param {string} old
   * @param {string} url
   * @param {AbortSignal} [signal]
   */
  async #fetched(old, url, signal) {
    const headers = { authorization: `Bearer ${old}` };
    const answer = await this.#fetch(url, { method: "POST", headers, signal });
    if (answer.status === 401 || answer.status === 403) {
      throw new TokenRefused("the token is no longer good");
    }
    if (!answer.ok) {
      const { message } = await answer.json().catch(() => ({}));
      throw new Error(message ?? `a new token was refused with ${answer.status}`);
    }
    const { token } = await answer.json();
    this.keep(token);
    return token;
  }

  #stored() {
    try {
      return this.#storage?.getItem(KEY) ?? null;
    } catch {
      return null;
    }
  }
}
