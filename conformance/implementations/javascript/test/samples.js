/** Data of several kinds for the zstd tests; frames.json has what the zstd command (1.5.4) made of it. */
import { random } from "./writer.js";

export function samples() {
  const next = random(42);
  const of = (n, make) => {
    const out = new Uint8Array(n);
    for (let i = 0; i < n; i++) out[i] = make(i, out);
    return out;
  };
  return {
    one: of(1, () => 7),
    raw: of(300, () => next(256)),
    same: of(200000, () => 9),
    gaps: of(1500, () => Math.min(255, Math.floor(-Math.log((1 + next(1000)) / 1001) * 40))),
    codes: of(1200, () => next(3) * 5 + next(2) * 64),
    sparse: of(200000, () => (next(1000) === 0 ? next(256) : 0)),
    copies: of(140000, (i, out) => (i > 900 && next(3000) ? out[i - 899] : next(32))),
  };
}
