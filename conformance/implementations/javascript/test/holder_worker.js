/** One holder in a thread of its own: it is asked by messages, and answers with numbers. */
import { parentPort, workerData } from "node:worker_threads";
import { Holder, MemoryStore, Reader, Shares, Slices } from "../src/index.js";

const { objects, index, pieces, version } = workerData;
const store = new MemoryStore(objects);
const shares = new Shares(pieces.length, ({ name }) => pieces.map((each) => each[name] ?? []));
const reader = new Reader(store);
await reader.read(version);
const holder = new Holder(store, { index, shares, held: Slices.of(reader.held, shares, index) });

const DO = {
  scan: () => holder.scan(),
  prove: (totals) => holder.prove(totals),
  flip: ({ name, place }) => {
    holder.held.tensors.get(name).bytes[place] ^= 1;
  },
  ask: async (to) => {
    const { sums, failure } = await holder.ask(to);
    return { sums, failure: failure && failure.toJSON() };
  },
  settle: (totals) => holder.settle(totals),
  words: () => new Map([...holder.held.tensors].map(([name, { bytes }]) => [name, bytes])),
};

parentPort.on("message", async ([what, value]) => {
  try {
    parentPort.postMessage({ value: await DO[what](value) });
  } catch (e) {
    parentPort.postMessage({ error: e.error ?? e.name });
  }
});
parentPort.postMessage({ value: "ready" });
