/** Following without a listing (section 10.2): from the version that the hint names back along bases, by get alone. */
import { Planner } from "./route.js";
import { CHAIN, manifestName, shortcutEdge } from "./names.js";
import { Rejection, reject } from "./errors.js";
import { checkFeatures } from "./manifest.js";

/** Versions that are walked through before the reader gives up. */
const FARTHEST = 4096;
const NOTHING = -1;

export class Trail extends Planner {
  /**
   * @param {import("./objects.js").Objects} objects
   * @param {import("./state.js").State|null} held
   * @param {string[]} features the features to know
   */
  static async of(objects, held, features) {
    const hint = await objects.hint();
    const shortcuts = (hint?.shortcuts ?? []).map((stem) => shortcutEdge(`shortcuts/${stem}.json`));
    const trail = new Trail(objects, [], shortcuts, held);
    trail.hinted = hint === null ? null : hint.version;
    trail.features = features;
    return trail;
  }

  /** The hinted version, if it exists and is newer than the one held; else the one held. */
  async newest() {
    const known = this.held?.version ?? null;
    if (this.hinted !== null && (known === null || this.hinted > known) && await this.exists(this.hinted)) {
      return this.hinted;
    }
    if (known === null) reject("missing", "TD-OBJ-008", CHAIN, "the hint names no version");
    return known;
  }

  async exists(version) {
    const { error } = await this.objects.tryManifest(version);
    if (error?.error === "missing" || this.objects.unsigned.has(manifestName(version))) return false;
    this.versions.add(version);
    return true;
  }

  async route(target) {
    for (const start of this.held === null ? [null] : [this.held, null]) {
      const route = await this.reach(target, start, new Set([target]));
      if (route !== null) return route;
    }
    return null;
  }

  /** The edges from `start` to a version, or null. @param {Set<number>} seen the versions that were visited */
  async reach(version, start, seen) {
    const oldest = start === null ? NOTHING : start.version ?? 0;
    for (const name of this.leadingTo(version, oldest)) {
      const edge = await this.edge(version, name);
      if (edge === null) continue;
      if (!edge.base) {
        if (start === null) return [edge];
        continue;
      }
      const { version: base } = edge.base;
      const found = await this.exists(base);
      if (start !== null && await this.startsAtHeld(edge)) return [edge];
      if (!found || base < oldest || seen.has(base) || seen.size >= FARTHEST) continue;
      seen.add(base);
      const route = await this.reach(base, start, seen);
      if (route !== null) return [...route, edge];
    }
    return null;
  }

  /** The shortcuts to try, the longest first, null for the version's own manifest, then a full shortcut by its name. */
  leadingTo(version, oldest) {
    const at = ({ base }) => base ?? NOTHING;
    const named = (this.shortcuts.get(version) ?? []).filter((each) => at(each) >= oldest).sort((a, b) => at(a) - at(b));
    const full = shortcutEdge(`shortcuts/${String(version).padStart(12, "0")}-full.json`);
    const more = oldest === NOTHING && !named.some(({ object }) => object === full.object) ? [full] : [];
    return [...named, null, ...more];
  }

  /** An edge that can be used, or null. @param {{object: string}|null} shortcut null: the version's own manifest */
  async edge(version, shortcut) {
    const { value: own, error } = await this.objects.tryManifest(version);
    if (error) {
      this.noteUnreadable(error.object, error);
      return null;
    }
    let edge = own;
    if (shortcut !== null) {
      edge = await this.hintedShortcut(shortcut);
      if (edge === null || edge.layout !== own.layout || edge.fingerprint !== own.fingerprint) return null;
    }
    if (this.failed.has(edge.object)) return null;
    try {
      checkFeatures(edge, this.features);
    } catch (e) {
      if (!(e instanceof Rejection)) throw e;
      this.failed.add(edge.object);
      this.noteUnreadable(edge.object, e);
      return null;
    }
    return edge;
  }

  /** [TD-FOL-006]: it was a name to try, whatever the store answers. */
  async hintedShortcut(shortcut) {
    try {
      return (await this.objects.tryShortcut(shortcut)).value ?? null;
    } catch (e) {
      if (e.name === "StoreFailure") return null;
      throw e;
    }
  }
}
