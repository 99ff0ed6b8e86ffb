/**
 * Which words a holder has (section 9.5). Each holder of a group knows the shares of all of them, and finds by itself
 * which words it owns: of the holders that have a word the first is its owner.
 *
 * @typedef {[number, number]|[number, number, number]} Piece  [start, stop] of a tensor's words, or [start, stop, row]:
 *   these words of every `row` words, as columns of a matrix
 * @typedef {{start: number, stop: number, place: number, owned: boolean, copies: number}} Stretch  words in a row that the
 *   same holders have: `place` is that of the first in the holder's own memory, `copies` how many holders have them
 */

/** Disjoint runs [start, stop) in ascending order. @param {Piece[]} pieces @param {number} words of the tensor */
function runsOf(pieces, words, name) {
  const runs = [];
  for (const [start, stop, row] of pieces) {
    const whole = Number.isSafeInteger(start) && Number.isSafeInteger(stop) && 0 <= start && start <= stop;
    if (!whole || stop > (row ?? words)) throw new RangeError(`${start} to ${stop} are no words of ${name}`);
    if (row === undefined) runs.push([start, stop]);
    else for (let at = 0; at + start < words; at += row) runs.push([at + start, Math.min(at + stop, words)]);
  }
  runs.sort((a, b) => a[0] - b[0]);
  const out = [];
  for (const [start, stop] of runs) {
    const last = out.at(-1);
    if (start === stop) continue;
    if (last && start <= last[1]) last[1] = Math.max(last[1], stop);
    else out.push([start, stop]);
  }
  return out;
}

/** The words of one tensor that one holder has. */
export class Share {
  /** @param {Stretch[]} stretches ascending */
  constructor(stretches) {
    this.stretches = stretches;
    const last = stretches.at(-1);
    this.count = last ? last.place + last.stop - last.start : 0;
  }

  /** The first stretch that ends after a word; the number of stretches, if none does. */
  after(word) {
    let low = 0;
    let high = this.stretches.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.stretches[middle].stop > word) high = middle;
      else low = middle + 1;
    }
    return low;
  }

  /** How many words of [start, stop) the holder has. */
  within(start, stop) {
    let sum = 0;
    for (let s = this.after(start); s < this.stretches.length && this.stretches[s].start < stop; s++) {
      sum += Math.min(stop, this.stretches[s].stop) - Math.max(start, this.stretches[s].start);
    }
    return sum;
  }

  /** Where a word that the holder has lies in its memory. */
  place(word) {
    const { start, place } = this.stretches[this.after(word)];
    return place + word - start;
  }

  /** The bytes of these words, from those of the whole tensor. @param {Uint8Array} bytes @param {number} width of a word */
  gather(bytes, width) {
    const out = new Uint8Array(this.count * width);
    for (const { start, stop, place } of this.stretches) out.set(bytes.subarray(start * width, stop * width), place * width);
    return out;
  }
}

/** The shares of one tensor, by holder. @returns {Share[]} */
function sharesOf(pieces, words, name) {
  const runs = pieces.map((list) => runsOf(list, words, name));
  const cuts = [...new Set(runs.flat(2))].sort((a, b) => a - b);
  const stretches = runs.map(() => []);
  const places = runs.map(() => 0);
  const next = runs.map(() => 0);
  for (let c = 0; c + 1 < cuts.length; c++) {
    const [start, stop] = [cuts[c], cuts[c + 1]];
    const having = [];
    runs.forEach((list, holder) => {
      while (next[holder] < list.length && list[next[holder]][1] <= start) next[holder]++;
      if (next[holder] < list.length && list[next[holder]][0] <= start) having.push(holder);
    });
    having.forEach((holder, i) => {
      stretches[holder].push({ start, stop, place: places[holder], owned: i === 0, copies: having.length });
      places[holder] += stop - start;
    });
  }
  return stretches.map((list) => new Share(list));
}

/** The shares of a group. */
export class Shares {
  /**
   * @param {number} holders how many there are
   * @param {(entry: import("./layout.js").Entry) => Piece[][]} pieces of a tensor, by holder; none for one of which nobody
   *   has words
   */
  constructor(holders, pieces) {
    this.holders = holders;
    this.pieces = pieces;
    /** By entry, and by what an entry says: layouts of several versions have entries of their own. */
    this.found = new WeakMap();
    this.known = new Map();
  }

  /** The shares of a tensor, by holder. @returns {Share[]} */
  all(entry) {
    let shares = this.found.get(entry);
    if (!shares) {
      const key = `${entry.dtype.name} ${entry.shape} ${entry.name}`;
      shares = this.known.get(key) ?? this.make(entry);
      this.known.set(key, shares);
      this.found.set(entry, shares);
    }
    return shares;
  }

  make(entry) {
    const pieces = this.pieces(entry);
    return sharesOf(Array.from({ length: this.holders }, (_, i) => pieces[i] ?? []), entry.words, entry.name);
  }

  /** @returns {Share} */
  of(holder, entry) {
    return this.all(entry)[holder];
  }

  /** The first holder that has words of a tensor; -1 for none. */
  first(entry) {
    return this.all(entry).findIndex(({ count }) => count > 0);
  }

  /** Whether the group has the tensor; one without words lacks nobody. */
  have(entry) {
    return entry.words === 0 || this.first(entry) >= 0;
  }
}
