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

/**
 * @param {{versions: number[], proven: Set<number>, faults: object[], shortcuts: number, keys: number, bytes: number,
 *   unlisted: boolean, more: boolean}} look  versions: ascending; keys: how many were given; bytes: that were read
 * @returns {{sound: boolean, sentence: string, proven: string[], open: string[]}}
 */
export function verdictOf({ versions, proven, faults, shortcuts, keys, bytes, unlisted, more }) {
  const sound = faults.length === 0;
  const lost = versions.filter((version) => !proven.has(version));
  return {
    sound,
    sentence: sound ? `No fault found: ${allOf(versions.length)} proven.`
      : `${counted(faults.length, "fault")}: ${proven.size === versions.length ? `the words of ${allOf(versions.length)} proven all the same` : `${countText(proven.size)} of ${counted(versions.length, "version")} ${proven.size === 1 ? "is" : "are"} proven`}.`,
    proven: whatIs({ proven, versions, shortcuts, keys, bytes, sound }),
    open: whatIsNot({ lost, keys, unlisted, more, versions }),
  };
}

const allOf = (count) => (count === 1 ? "the one version is" : `all ${countText(count)} versions are`);

function whatIs({ proven, versions, shortcuts, keys, bytes, sound }) {
  if (proven.size === 0) return [];
  const which = proven.size === versions.length ? "Each version" : `Each of versions ${rangesText(versions.filter((version) => proven.has(version)))}`;
  const out = [`${which} was rebuilt here from its packs (${bytesText(bytes)} were read), and the fingerprint over all its words is the one that its manifest states.`];
  out.push(`${sound ? "Every pack, layout and file" : "Whatever is not named above"} has the size and the SHA-256 that the manifests state: no bit was lost or changed since the chain was written.`);
  if (shortcuts > 0 && sound) out.push(`${shortcuts === 1 ? "The shortcut leads" : `The ${countText(shortcuts)} shortcuts lead`} to the same words.`);
  if (keys > 0 && sound) out.push("The chain, its versions and its shortcuts are signed with the keys that you gave.");
  return out;
}

function whatIsNot({ lost, keys, unlisted, more, versions }) {
  const out = [];
  if (lost.length > 0) out.push(`${lost.length === 1 ? "Version" : "Versions"} ${rangesText(lost)}: a fault lies in their own packs or in a version on which they build.`);
  if (keys === 0) out.push("Who wrote the chain: you gave no public key, so no signature was checked. Somebody who can write to the whole chain could have replaced it.");
  out.push("That the trainer had these weights: the chain shows what was published, not what should have been.");
  if (unlisted) out.push(`That these are all versions: a web server lists nothing, so versions were looked for from latest.json downwards${more ? `, and not below version ${versions[0]}` : ""}.`);
  return out;
}
