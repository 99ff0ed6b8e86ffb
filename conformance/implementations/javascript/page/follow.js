/** A chain on a server in, version after version out: each is read and checked in the browser. */
import { HttpStore, Reader, follow, hex64 } from "../src/index.js";
import { $, describe, limits, row } from "./dom.js";

/** Ends the following at hand. @type {AbortController|null} */
let current = null;

const say = (text) => {
  $("following").textContent = text;
};

const now = () => new Date().toISOString().replace(/\..*/, "Z");

/** How many of a state's tensors have other bytes than before. */
function changedTensors(before, after) {
  return [...after.tensors].filter(([name, { bytes }]) => before?.tensors.get(name)?.bytes !== bytes).length;
}

async function start() {
  current?.abort();
  const mine = new AbortController();
  current = mine;
  $("followed").replaceChildren();
  $("stop").disabled = false;
  say("Looking …");
  try {
    const reader = new Reader(new HttpStore($("url").value), limits());
    let before = null;
    for await (const { version, route, failure } of follow(reader, { seconds: Number($("seconds").value), signal: mine.signal })) {
      if (mine.signal.aborted) break;
      if (failure) {
        say(`${now()}: ${describe(failure)}; what is held stays: ${before ? `version ${before.version}` : "nothing"}.`);
        continue;
      }
      const { held } = reader;
      row([version, now(), route.join(", "), `${changedTensors(before, held)} of ${held.tensors.size} tensors changed`,
        `fingerprint ${hex64(held.fingerprint)}`], $("followed"));
      say(`Version ${version} is held.`);
      before = held;
    }
  } catch (e) {
    say(describe(e));
  }
  if (current === mine) stop();
}

function stop() {
  current?.abort();
  current = null;
  $("stop").disabled = true;
}

$("follow").addEventListener("click", start);
$("stop").addEventListener("click", stop);
