/**
 * One holder of a group (section 9.5). It talks to the others in numbers alone, so that each can live in a thread or a
 * process of its own: everybody's numbers are added up, and everybody gets the totals.
 */
import { Reader } from "./reader.js";
import { Progress, Slices, applySlices, scanShare, sumOf } from "./slices.js";
import { GroupFailure, ROW, judge, together, total } from "./sums.js";
import { Rejection, reject } from "./errors.js";
import { CHAIN, manifestName } from "./names.js";
import { sha256 } from "./sha256.js";
import { toUtf8 } from "./bytes.js";

const u64 = (x) => BigInt.asUintN(64, x);

/** Row 3: what only holders of one update have. */
const updateNumber = (text) => new DataView(sha256(toUtf8(text)).buffer).getBigUint64(0, true);

/**
 * What a holder says of an update that it has prepared.
 * @typedef {{sums: BigUint64Array, failed: string[], failure: Rejection|null, version: number|null}} Answer  failed: edges
 *   that the others do well to leave out as well; failure: why there is no update
 */
export class Holder extends Reader {
  /**
   * @param {import("./store.js").Store} store
   * @param {{index: number, shares: import("./share.js").Shares, held?: Slices|null}} options  and those of Reader, but
   *   for `tensors`. index: which of the group's holders this is
   */
  constructor(store, options) {
    super(store, { ...options, tensors: null });
    this.index = options.index;
    this.shares = options.shares;
    this.update = null;
  }

  /** The scan of all words: the sum of those that it owns, and that of replicas. @returns {BigUint64Array} */
  scan() {
    let [owned, replicas] = [0n, 0n];
    for (const held of this.held?.tensors.values() ?? []) {
      const sums = scanShare(held, this.shares.of(this.index, held.entry));
      owned += sums.owned;
      replicas += sums.replicas;
    }
    return BigUint64Array.of(u64(owned), u64(replicas));
  }

  /**
   * [TD-SLC-002] Takes the words of the group for the version that is remembered, or else for a state of this fingerprint.
   * @param {BigUint64Array} totals of all scans
   */
  async prove([owned, replicas]) {
    const { held, shares } = this;
    const object = held.version === null ? CHAIN : manifestName(held.version);
    if (replicas !== 0n) reject("wrong-base", "TD-SLC-002", object, "a replica differs from its owner's word");
    const objects = await this.open();
    const { value: manifest } = held.version === null ? {} : await objects.tryManifest(held.version);
    if (!manifest) {
      if (!held.layout.tensors.every((entry) => shares.have(entry))) {
        reject("unsupported", "TD-RDR-013", object, "the group lacks tensors, and no manifest says which version it has");
      }
      this.held = held.named(held.version, owned);
      return;
    }
    const layout = await objects.layout(manifest.layout);
    if (!held.layout.equals(layout) || owned !== await sumOf(objects, manifest, layout, shares)) {
      reject("wrong-base", "TD-SLC-002", object, `the words of the group are not those of version ${held.version}`);
    }
    this.held = held.named(held.version, manifest.fingerprint);
  }

  async follow(objects, edge, state) {
    const progress = state === this.held ? new Progress() : state.progress;
    return applySlices(objects, edge, state ?? Slices.nothing(), progress, this);
  }

  /** Whether all holders are at this holder's update, each of them sound. @param {BigUint64Array} totals */
  agrees(totals) {
    return this.update !== null && together(totals, this.shares.holders, this.update.number);
  }

  /**
   * Prepares an update as far as a holder can alone.
   * @param {number|null} to the version; null: the newest
   * @param {Iterable<string>} [without] names of edges that failed at other holders
   * @returns {Promise<Answer>}
   */
  async ask(to = null, without = []) {
    const failed = new Set(without);
    this.update = null;
    let failure = null;
    try {
      this.update = await this.prepare(to, failed);
    } catch (e) {
      if (!(e instanceof Rejection)) throw e;
      failure = e;
    }
    const sums = new BigUint64Array(7);
    sums[ROW.holders] = 1n;
    if (this.update) {
      const { progress } = this.update.to;
      sums[ROW.sound] = 1n;
      sums[ROW.update] = this.update.number;
      sums[ROW.listed] = u64(progress.listed);
      sums[ROW.results] = u64(progress.results);
      sums[ROW.change] = u64(progress.change);
      sums[ROW.replicas] = u64(progress.replicas);
    }
    return { sums, failed: [...failed], failure, version: this.update?.to.version ?? null };
  }

  /** Adds to an update what the totals are compared with. */
  async prepared(objects, version, state, edges) {
    const update = await super.prepared(objects, version, state, edges);
    const [first] = edges;
    const manifest = await objects.manifest(version);
    const after = await sumOf(objects, manifest, state.layout, this.shares);
    let before = first ? 0n : after;
    if (first?.base) before = await sumOf(objects, { ...first.base, object: first.object }, this.held.layout, this.shares);
    const trace = first ? state.progress.trace : "";
    return {
      ...update, change: u64(after - before), full: edges.length === 1 && first.base === null,
      number: updateNumber(`${this.pinned} ${version}\n${trace}`),
    };
  }

  /** [TD-SLC-001] Throws unless these are the totals of the update that was asked for. @param {BigUint64Array} totals */
  judge(totals) {
    if (!this.update) throw new GroupFailure("this holder has no update");
    const { to, change, full, number } = this.update;
    judge(totals, { holders: this.shares.holders, update: number, change, full, object: manifestName(to.version) });
  }

  /** Applies the update that was asked for. @param {BigUint64Array} totals of the sums of all answers */
  settle(totals) {
    this.judge(totals);
    const { update } = this;
    this.apply({ ...update, to: update.to.named(update.to.version) });
    this.update = null;
  }
}

/** The scan of a group, and what it proves. @param {Holder[]} holders */
export async function proveTogether(holders) {
  const totals = total(holders.map((holder) => holder.scan()));
  for (const holder of holders) await holder.prove(totals);
}

/**
 * Brings a group to a version, or leaves it as it is. The holders here are in one thread; over threads, the same is done
 * with messages.
 * @param {Holder[]} holders @param {number|null} to
 * @returns {Promise<number>} the version
 */
export async function readTogether(holders, to = null) {
  const failed = new Set();
  let failure = null;
  for (;;) {
    const known = failed.size;
    const answers = [];
    for (const holder of holders) answers.push(await holder.ask(to, failed));
    for (const answer of answers) {
      answer.failed.forEach((name) => failed.add(name));
      failure ??= answer.failure;
    }
    const totals = total(answers.map(({ sums }) => sums));
    const agreed = holders.every((holder) => holder.agrees(totals));
    // An edge that failed for one holder is left out by all [TD-RTE-004].
    if (!agreed && failed.size > known) continue;
    if (!agreed && failure) throw failure;
    for (const holder of holders) holder.judge(totals);
    for (const holder of holders) holder.settle(totals);
    return answers[0].version;
  }
}
