/** A chain on a server, version after version: each is read and checked in the browser. */
import { HttpStore, Reader, follow, hex64 } from "../src/index.js";
import { $, limits, make, sentences } from "./dom.js";
import { bytesText, timeText } from "./figures.js";
import { PageStore } from "./sources.js";

/** Ends the following at hand. @type {AbortController|null} */
let current = null;

const say = (...parts) => $("following").replaceChildren(...parts);

/** How many of a state's tensors have other bytes than before. */
const changedTensors = (before, after) =>
  [...after.tensors].filter(([name, { bytes }]) => before?.tensors.get(name)?.bytes !== bytes).length;

const cells = (...texts) => make("tr", {}, ...texts.map((text) => make("td", {}, text)));

/** Says how much has been read of a version that takes a while. */
function watch(signal) {
  let all = 0;
  return {
    signal,
    unlessEnded: (promise) => promise,
    read(bytes) {
      // Small objects, the hint among them, come again and again.
      if (bytes <= 2 ** 16 || signal.aborted) return;
      all += bytes;
      if (all > 2 ** 20) say(`Reading: ${bytesText(all)} …`);
    },
  };
}

/** @param {string} url @param {(version: number) => Promise<void>} seen is called with each version that is held */
async function start(url, seen) {
  stop();
  const mine = new AbortController();
  current = mine;
  $("followed").tBodies[0].replaceChildren();
  $("followed").hidden = false;
  $("follow").disabled = true;
  $("stop").disabled = false;
  say("Looking …");
  try {
    const store = new PageStore(new HttpStore(url));
    store.work = watch(mine.signal);
    const reader = new Reader(store, { ...limits(), breathe: () => store.breathe() });
    let before = null;
    for await (const { version, route, failure } of follow(reader, { seconds: Math.max(0, Number($("seconds").value)), signal: mine.signal })) {
      if (mine.signal.aborted) break;
      if (failure) {
        say(...sentences(failure, { where: url }), `What is held stays: ${before ? `version ${before.version}` : "nothing"}. The next look tries again.`);
        continue;
      }
      store.work = watch(mine.signal);
      const { held } = reader;
      $("followed").tBodies[0].prepend(cells(String(version), timeText(new Date().toISOString()),
        route.map((name) => name.replace(/^.*\/|\.json$/g, "").replace(/^0+(?=\d)/, "")).join(", "), `${changedTensors(before, held)} of ${held.tensors.size}`, hex64(held.fingerprint)));
      say(`Version ${version} is held, and its fingerprint is right.`);
      before = held;
      await seen(version);
    }
  } catch (e) {
    if (current === mine) say(...sentences(e, { where: url }));
  }
  if (current === mine) stop();
}

export function stop() {
  current?.abort();
  current = null;
  $("follow").disabled = false;
  $("stop").disabled = true;
}

/** Lets the buttons follow this chain; null: there is none on a server. */
export function offerFollowing(url, seen) {
  stop();
  $("live").hidden = url === null;
  $("followed").hidden = true;
  say("");
  $("follow").onclick = () => start(url, seen);
}

$("stop").addEventListener("click", () => {
  stop();
  say("Stopped.");
});
