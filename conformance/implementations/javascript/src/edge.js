/** One edge of a route: steps 5 to 11 of section 9.1, from one state to the next. Nothing held is changed. */
import { EMPTY_LAYOUT } from "./layout.js";
import { State } from "./state.js";
import { WholeTensors, fit } from "./slots.js";
import { readPack } from "./pack.js";
import { Ranges } from "./ranges.js";
import { hex64 } from "./bytes.js";
import { reject } from "./errors.js";
import { checkFeatures } from "./manifest.js";

/**
 * Whether the layout of a digest is the one held. Equal digests mean equal layouts; else the lists decide.
 * @param {import("./objects.js").Objects} objects
 */
export async function isHeldLayout(objects, digest, state) {
  if (state.layout.digest === digest) return true;
  return state.layout.equals(await objects.layout(digest));
}

/** Step 6 for a Reader of whole states. @param {string[]} rules that a wrong fingerprint, and a wrong layout, break */
export async function checkBase(objects, manifest, state, rules = ["TD-RDR-003", "TD-RDR-004"]) {
  const { base, object } = manifest;
  if (base.fingerprint !== state.fingerprint) {
    reject("wrong-base", rules[0], object,
      `base.fingerprint is ${hex64(base.fingerprint)}, and that of the state held ${hex64(state.fingerprint)}`);
  }
  if (!await isHeldLayout(objects, base.layout, state)) {
    reject("wrong-base", rules[1], object, "the state held has another layout than the base");
  }
}

/** The fingerprints object of a version, as its own manifest names it (section 9.4). */
export async function fingerprintsOf(objects, version, object) {
  const { value } = await objects.tryManifest(version);
  if (!value || value.tensorFingerprints === null) {
    reject("unsupported", "TD-RDR-013", object, `version ${version} names no fingerprints object`);
  }
  const layout = await objects.layout(value.layout);
  return { layout, sums: await objects.fingerprints(value, layout) };
}

/** "before" of section 9.4: the tensors held are those of the base version. Those that the base lacks are not looked at. */
async function checkPartBase(objects, manifest, state, wanted) {
  const { base, object } = manifest;
  const { layout, sums } = await fingerprintsOf(objects, base.version, object);
  layout.tensors.forEach((entry, i) => {
    if (!wanted(entry.name)) return;
    const held = state.tensors.get(entry.name);
    if (!held || !held.entry.sameType(entry) || held.fingerprint !== sums[i]) {
      reject("wrong-base", "TD-RDR-011", object, `${entry.name} is not that of version ${base.version}`);
    }
  });
  // What is held beyond the base plays no part in fitting.
  const known = new Map([...state.tensors].filter(([name]) => layout.indexOf(name) !== undefined));
  return new State(null, known, state.version, true);
}

/** "after" of section 9.4. */
async function checkPartResult(objects, manifest, slots) {
  const { sums } = await fingerprintsOf(objects, manifest.version, manifest.object);
  slots.forEach((slot, i) => {
    if (slot && slot.fingerprint !== sums[i]) {
      reject("integrity", "TD-RDR-012", manifest.object,
        `${slot.entry.name} has fingerprint ${hex64(slot.fingerprint)}, and version ${manifest.version} ${hex64(sums[i])}`);
    }
  });
}

const everything = () => true;
const nothing = () => false;

/**
 * @param {import("./objects.js").Objects} objects
 * @param {import("./manifest.js").Manifest} manifest
 * @param {State} state that the edge starts from; not looked at where base is null
 * @param {{features: Iterable<string>, only?: Set<string>|null}} options  only: the names of the tensors to hold
 * @returns {Promise<State>}
 */
export async function applyEdge(objects, manifest, state, { features, only = null }) {
  const { budget } = objects;
  checkFeatures(manifest, features);
  const layout = await objects.layout(manifest.layout);
  const wanted = only ? (name) => only.has(name) : everything;
  let base = null;
  if (only) {
    // Said before anything is fetched for nothing.
    await fingerprintsOf(objects, manifest.version, manifest.object);
    if (manifest.base) base = await checkPartBase(objects, manifest, state, wanted);
  } else if (manifest.base) {
    await checkBase(objects, manifest, state);
    base = state;
  }
  const slots = fit(base, layout, wanted, budget, manifest.object);
  const words = new WholeTensors(slots, manifest, budget);
  await readPacks(objects, manifest, layout, words, only && ((tensor) => slots[tensor] !== null));
  if (only) {
    await checkPartResult(objects, manifest, slots);
  } else {
    let sum = 0n;
    for (const slot of slots) sum += slot.fingerprint;
    sum = BigInt.asUintN(64, sum);
    if (sum !== manifest.fingerprint) {
      reject("integrity", "TD-RDR-007", manifest.object,
        `the new state has fingerprint ${hex64(sum)}, and the manifest ${hex64(manifest.fingerprint)}`);
    }
  }
  const tensors = new Map();
  for (const slot of slots) {
    if (slot) tensors.set(slot.entry.name, { entry: slot.entry, bytes: slot.bytes, fingerprint: slot.fingerprint });
  }
  return new State(layout, tensors, manifest.version, only !== null);
}

/**
 * What can be checked of an edge without the state that it starts from: everything but words and fingerprints.
 */
export async function checkEdgeForm(objects, manifest, features) {
  checkFeatures(manifest, features);
  const layout = await objects.layout(manifest.layout);
  const slots = fit(null, layout, nothing, objects.budget, manifest.object);
  await readPacks(objects, manifest, layout, new WholeTensors(slots, manifest, objects.budget));
}

/**
 * Steps 7 to 10 for all packs of an edge.
 * @param {import("./chunk.js").Words} words
 * @param {((tensor: number) => boolean)|null} [wanted] packs without a wanted tensor are left out [TD-RDR-015]; null: none
 */
export async function readPacks(objects, manifest, layout, words, wanted = null) {
  const { budget } = objects;
  const ranges = new Ranges();
  for (const pack of manifest.packs) {
    if (pack.tensors.at(-1)[1] > layout.tensors.length) {
      reject("malformed", "TD-MAN-001", manifest.object, `${pack.where}.tensors ends beyond the layout`);
    }
  }
  /** How many tensors before an index are wanted. */
  const before = [0];
  layout.tensors.forEach((_, tensor) => before.push(before[tensor] + (!wanted || wanted(tensor) ? 1 : 0)));
  for (const pack of manifest.packs) {
    if (wanted && pack.tensors.every(([first, stop]) => before[first] === before[stop])) continue;
    const mark = budget.mark();
    const bytes = await objects.pack(pack, manifest);
    await readPack(bytes, pack, manifest, layout, words, ranges, budget, objects.breathe);
    budget.back(mark);
  }
}

export const EMPTY = new State(EMPTY_LAYOUT, new Map(), null);
