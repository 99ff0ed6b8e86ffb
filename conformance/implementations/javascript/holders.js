/** A group of holders in the adapter's process (level `slice`), each with memory of its own. */
import { Holder, Shares, Slices, State, entryOf, proveTogether, readTogether } from "./src/index.js";
import { wordView } from "./src/dtypes.js";

export class HolderGroup {
  /**
   * @param {import("./src/state.js").State|null} state that they have together; null: nothing
   * @param {object} request with `holders`, and `tensors` where they have these only
   * @param {(options: object) => Holder} make a Holder with these options
   */
  constructor(state, { holders, tensors = null }, make) {
    const pieces = ({ name }) => holders.map((each) => (!tensors || tensors.includes(name) ? each[name] ?? [] : []));
    this.shares = new Shares(holders.length, pieces);
    this.holders = holders.map((_, index) =>
      make({ index, shares: this.shares, held: state && Slices.of(state, this.shares, index) }));
    this.proven = state === null;
  }

  /** The same holders, with what they have, for another request. */
  handOver(make) {
    this.holders = this.holders.map(({ index, held }) => make({ index, shares: this.shares, held }));
  }

  async prove() {
    if (!this.proven) await proveTogether(this.holders);
    this.proven = true;
  }

  /** Changes words in the memory of holders. @param {[number, string, number, number][]} altered holder, name, word, value */
  alter(altered) {
    for (const [index, name, word, value] of altered) {
      const { entry, bytes } = this.holders[index].held.tensors.get(name);
      const { w } = entry.dtype;
      wordView(bytes, w)[this.shares.of(index, entry).place(word)] = w === 64 ? BigInt(value) : value;
    }
  }

  /** @returns {Promise<number>} the version */
  async read(to) {
    return readTogether(this.holders, to);
  }

  /** What they have, as one state with a tensor `0:NAME`, `1:NAME`, … for each holder's words; null for nothing. */
  state() {
    const list = [];
    for (const { index, held } of this.holders) {
      for (const [name, { entry: { dtype }, bytes }] of held?.tensors ?? []) {
        list.push({ entry: entryOf(`${index}:${name}`, dtype.name, [bytes.length * 8 / dtype.bits], "holders", ""), bytes });
      }
    }
    return this.holders.every(({ held }) => held === null) ? null : State.of(list);
  }
}
