/** Following a chain (section 10.2): version after version, as long as its user wants. */
import { LATEST } from "./names.js";
import { LIMIT } from "./limits.js";
import { Rejection } from "./errors.js";
import { StoreFailure, TooLong } from "./store.js";
import { equalBytes } from "./bytes.js";

/** Waits; at an abort no longer. */
const pause = (seconds, signal) => new Promise((resolve) => {
  const done = () => {
    clearTimeout(timer);
    signal?.removeEventListener("abort", done);
    resolve();
  };
  const timer = setTimeout(done, 1000 * seconds);
  signal?.addEventListener("abort", done);
});

/** The bytes of the hint; null where there is none, or one that says nothing. */
async function hintOf(store) {
  try {
    return await store.get(LATEST, LIMIT.smallObject);
  } catch (e) {
    if (e instanceof TooLong) return null;
    throw e;
  }
}

/**
 * Brings what a Reader holds to the newest version, again and again. Where nothing is listed, a look at an unchanged hint
 * is one request, which the server answers with 304.
 * @param {import("./reader.js").Reader} reader
 * @param {{seconds?: number, signal?: AbortSignal}} [options] seconds: between two looks; signal: ends it
 * @yields {{version: number, route: string[]}|{failure: Rejection|StoreFailure}} a version that is held now, or why a look
 *   came to nothing: what was held stays, and the next look tries again
 */
export async function* follow(reader, { seconds = 5, signal } = {}) {
  /** The hint of the last look that ended well. */
  let known = null;
  while (!signal?.aborted) {
    let seen = null;
    try {
      const hint = reader.store.lists === false ? await hintOf(reader.store) : null;
      if (hint === null || known === null || !equalBytes(hint, known)) {
        const before = reader.held?.version ?? null;
        const { to: { version }, route } = await reader.read();
        if (version !== before) seen = { version, route };
        known = hint;
      }
    } catch (e) {
      if (!(e instanceof Rejection || e instanceof StoreFailure)) throw e;
      seen = { failure: e };
    }
    if (seen) yield seen;
    if (!signal?.aborted) await pause(seconds, signal);
  }
}
