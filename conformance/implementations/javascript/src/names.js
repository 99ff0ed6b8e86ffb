/** Names of objects (section 4.1). */
const MANIFEST = /^manifests\/([0-9]{12})\.json$/;
const SHORTCUT = /^shortcuts\/([0-9]{12})-([0-9]{12}|full)(\.[a-z0-9]{1,16})?\.json$/;

export const CHAIN = "chain.json";
export const LATEST = "latest.json";
export const manifestName = (version) => `manifests/${String(version).padStart(12, "0")}.json`;
export const layoutName = (digest) => `layouts/${digest}.json`;
export const fingerprintsName = (digest) => `fingerprints/${digest}.bin`;
/** Of the copy of a manifest or shortcut that was dropped. */
export const retiredName = (name) => `retired/${name}`;

/** The version of a manifest's name, or null. */
export function manifestVersion(name) {
  const found = MANIFEST.exec(name);
  return found && Number(found[1]);
}

/** @returns {{object: string, version: number, base: number|null}|null} base null: from nothing */
export function shortcutEdge(name) {
  const found = SHORTCUT.exec(name);
  return found && { object: name, version: Number(found[1]), base: found[2] === "full" ? null : Number(found[2]) };
}
