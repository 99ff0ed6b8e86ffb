/** What a look of the Verifier has shown, and what it has not. */
import { bytesText, countText, counted } from "./figures.js";

/** Numbers as ranges: `0–4, 7`. @param {number[]} numbers ascending */
export function rangesText(numbers) {
  const ranges = [];
  for (const number of numbers) {
    const last = ranges.at(-1);
    if (last && last[1] === number - 1) last[1] = number;
    else ranges.push([number, number]);
  }
  const shown = ranges.map(([first, last]) => (first === last ? `${first}` : `${first}–${last}`));
  return shown.length > 12 ? `${shown.slice(0, 11).join(", ")}, … ${shown.at(-1)}` : shown.join(", ");
}

/** A budget that is too small proves nothing against the chain. */
const tooLarge = ({ rule }) => rule === "TD-LIM-002";

/**
 * @param {{versions: number[], proven: Set<number>, faults: import("../src/errors.js").Rejection[], shortcuts: number,
 *   keys: number, bytes: number, unlisted: boolean, more: boolean}} look  versions: ascending; keys: how many were given;
 *   bytes: that were read
 * @returns {{kind: "good"|"bad"|"unsure", sentence: string, faults: import("../src/errors.js").Rejection[],
 *   proven: string[], open: string[]}}
 */
export function verdictOf(look) {
  const { versions, proven } = look;
  const faults = look.faults.filter((fault) => !tooLarge(fault));
  const cut = look.faults.length > faults.length;
  const lost = versions.filter((version) => !proven.has(version));
  const some = `${countText(proven.size)} of ${counted(versions.length, "version")} ${proven.size === 1 ? "is" : "are"} proven`;
  let kind = "good";
  let sentence = `No fault found: ${allOf(versions.length)} proven.`;
  if (faults.length > 0) {
    kind = "bad";
    sentence = `${counted(faults.length, "fault")}: ${lost.length === 0 ? `the words of ${allOf(versions.length)} proven all the same` : some}.`;
  } else if (cut) {
    kind = "unsure";
    sentence = `Not all of it was verified: ${some}.`;
  }
  const sound = kind === "good";
  return { kind, sentence, faults, proven: whatIs({ ...look, sound, complete: faults.length === 0 }), open: whatIsNot({ ...look, lost, cut }) };
}

const allOf = (count) => (count === 1 ? "the one version is" : `all ${countText(count)} versions are`);

function whatIs({ proven, versions, shortcuts, keys, bytes, sound, complete }) {
  if (proven.size === 0) return [];
  const which = proven.size === versions.length ? "Each version" : `Each of versions ${rangesText(versions.filter((version) => proven.has(version)))}`;
  const out = [`${which} was rebuilt here from its packs (${bytesText(bytes)} were read), and the fingerprint over all its words is the one that its manifest states.`];
  out.push(`${sound ? "Every pack, layout and file" : complete ? "What was read" : "Whatever is not named above"} has the size and the SHA-256 that the manifests state: no bit was lost or changed since the chain was written.`);
  if (shortcuts > 0 && sound) out.push(`${shortcuts === 1 ? "The shortcut leads" : `The ${countText(shortcuts)} shortcuts lead`} to the same words.`);
  if (keys > 0 && sound) out.push("The chain, its versions and its shortcuts are signed with the keys that you gave.");
  return out;
}

function whatIsNot({ lost, cut, keys, unlisted, more, versions }) {
  const out = [];
  if (cut) out.push("All that needs more memory than the page may use: give it more in the settings, or use the command line: tensordelta verify.");
  if (lost.length > 0 && !cut) out.push(`${lost.length === 1 ? "Version" : "Versions"} ${rangesText(lost)}: a fault lies in their own packs or in a version on which they build.`);
  if (keys === 0) out.push("Who wrote the chain: you gave no public key, so no signature was checked. Somebody who can write to the whole chain could have replaced it.");
  out.push("That the trainer had these weights: the chain shows what was published, not what should have been.");
  if (unlisted) out.push(`That these are all versions: a web server lists nothing, so versions were looked for from latest.json downwards${more ? `, and not below version ${versions[0]}` : ""}.`);
  return out;
}
