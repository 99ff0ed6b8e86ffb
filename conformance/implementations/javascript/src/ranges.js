/**
 * All words that the packs of a manifest name; no word may be named twice [TD-MAN-019].
 *
 * Chunks are applied pack by pack, so each pack is checked against all before it. Sorted runs of similar length are
 * merged, as in a log-structured tree: neither many packs nor many slices make this slow.
 */
import { reject } from "./errors.js";

/** Index of the first range that ends after `start`. @param {number[]} run start, stop, start, stop, … */
function firstAfter(run, start) {
  let low = 0;
  let high = run.length / 2;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (run[2 * middle + 1] > start) high = middle;
    else low = middle + 1;
  }
  return low;
}

function merge(a, b) {
  const out = [];
  let i = 0;
  let j = 0;
  while (i < a.length || j < b.length) {
    if (j === b.length || (i < a.length && a[i] < b[j])) out.push(a[i++], a[i++]);
    else out.push(b[j++], b[j++]);
  }
  return out;
}

export class Ranges {
  constructor() {
    /** @type {Map<number, number[][]>} sorted runs, by tensor */
    this.runs = new Map();
    /** @type {Map<number, number[]>} of the pack at hand */
    this.fresh = new Map();
  }

  add(tensor, start, stop, budget, object) {
    if (start === stop) return;
    budget.keep(32, object, "slices");
    const list = this.fresh.get(tensor);
    if (list) list.push(start, stop);
    else this.fresh.set(tensor, [start, stop]);
  }

  /** Checks what was added since the last call. */
  check(manifest, layout) {
    const twice = (tensor, word) => reject("malformed", "TD-MAN-019", manifest.object,
      `word ${word} of ${layout.tensors[tensor].name} is named twice`);
    for (const [tensor, list] of this.fresh) {
      const order = Array.from({ length: list.length / 2 }, (_, i) => 2 * i).sort((a, b) => list[a] - list[b]);
      let run = [];
      for (const i of order) {
        if (run.length && run[run.length - 1] > list[i]) twice(tensor, list[i]);
        run.push(list[i], list[i + 1]);
      }
      const runs = this.runs.get(tensor) ?? [];
      for (const old of runs) {
        for (let i = 0; i < run.length; i += 2) {
          const hit = firstAfter(old, run[i]);
          if (2 * hit < old.length && old[2 * hit] < run[i + 1]) twice(tensor, Math.max(old[2 * hit], run[i]));
        }
      }
      while (runs.length && runs[runs.length - 1].length <= 2 * run.length) run = merge(runs.pop(), run);
      runs.push(run);
      this.runs.set(tensor, runs);
    }
    this.fresh.clear();
  }
}
