import { test } from "node:test";
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { checkFrame, decodeFrame } from "../src/zstd.js";
import { sha256 } from "../src/sha256.js";
import { webDigest } from "../src/digest.js";
import { frame, random, sha } from "./writer.js";
import { samples } from "./samples.js";
import { toHex } from "../src/bytes.js";

/** Another decoder, where it is installed. */
const { decompress } = await import("fzstd").catch(() => ({ decompress: null }));

const bad = (rule, message) => {
  throw Object.assign(new Error(message), { rule });
};
const decode = (f, lowest, highest = lowest) => decodeFrame(f, checkFrame(f, lowest, highest, bad), bad);
const FRAMES = JSON.parse(readFileSync(new URL("frames.json", import.meta.url), "utf8"))
  .map((f) => ({ ...f, frame: new Uint8Array(Buffer.from(f.frame, "base64")) }));

test("frames of the zstd command", () => {
  const data = samples();
  for (const { name, size, frame: f } of FRAMES) assert.equal(Buffer.compare(decode(f, size), data[name]), 0, name);
});

test("what another decoder makes of them", { skip: decompress === null && "fzstd is not installed" }, () => {
  for (const { name, size, frame: f } of FRAMES) assert.equal(Buffer.compare(decode(f, size), decompress(f)), 0, name);
});

test("frames of raw and RLE blocks", () => {
  const next = random(3);
  for (const n of [1, 5, 255, 300, 131072, 131073, 300000]) {
    const data = Uint8Array.from({ length: n }, () => (n > 131072 ? 5 : next(256)));
    for (const single of [true, false]) assert.equal(Buffer.compare(decode(frame(data, { single }), n), data), 0);
  }
});

test("frame headers that are legal zstd and not legal here", () => {
  const f = frame(Uint8Array.of(1, 2, 3, 4, 5));
  const edit = (change) => {
    const copy = [...f];
    return Uint8Array.from(change(copy) ?? copy);
  };
  const cases = [
    ["TD-ZST-003", f, 6],
    ["TD-ZST-005", edit((c) => { c[4] |= 1; }), 5],
    ["TD-ZST-001", edit((c) => { c[4] |= 8; }), 5],
    ["TD-ZST-006", edit((c) => [...c, 0]), 5],
    ["TD-ZST-006", edit((c) => [...c, ...c]), 5],
    ["TD-ZST-001", edit((c) => c.slice(0, -1)), 5],
    ["TD-ZST-001", f.subarray(0, 4), 5],
    ["TD-ZST-007", edit((c) => [0x50, 0x2a, 0x4d, 0x18, 0, 0, 0, 0, ...c]), 5],
    ["TD-ZST-002", Uint8Array.of(0x28, 0xb5, 0x2f, 0xfd, 0x04, 0, 1, 0, 0, 0, 0, 0, 0), 5],
    ["TD-ZST-008", Uint8Array.of(0x28, 0xb5, 0x2f, 0xfd, 0x84, 18 << 3, 5, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0), 5],
    ["TD-ZST-013", edit((c) => { c[c.length - 1] ^= 1; }), 5],
    ["TD-ZST-009", edit((c) => { c[5] = 6; }), 6],
    ["TD-ZST-009", edit((c) => { c[5] = 4; }), 4],
  ];
  for (const [rule, bytes, size] of cases) assert.throws(() => decode(bytes, size), { rule });
  assert.deepEqual([...decode(edit((c) => { c[4] |= 16; }), 5)], [1, 2, 3, 4, 5]); // bit 4 is not looked at
  assert.deepEqual([...decode(Uint8Array.of(0x28, 0xb5, 0x2f, 0xfd, 0x24, 5, 0x29, 0, 0, 0xcd, 0xcd, 0, 0, 0, 0x41, 0x8a, 0x69, 0xc8), 1, 9)],
    [0xcd, 0xcd, 0, 0, 0]);
});

test("any flipped bit or cut of a frame is a rejection, soon", () => {
  const next = random(11);
  const data = samples();
  for (const { name, size, frame: f } of FRAMES) {
    for (let round = 0; round < 40; round++) {
      const broken = f.slice();
      broken[next(f.length)] ^= 1 << next(8);
      try {
        assert.equal(Buffer.compare(decode(broken, size), data[name]), 0);
      } catch (e) {
        assert.match(e.rule ?? String(e.stack), /^TD-ZST/);
      }
    }
    assert.throws(() => decode(f.subarray(0, next(f.length)), size), (e) => /^TD-ZST/.test(e.rule));
  }
});

test("a block that asks for endless copies ends at once", () => {
  // One compressed block: no literals, many sequences of the longest match at offset 1, all tables RLE.
  const count = 40000;
  const stream = new Uint8Array(2 * count + 1).fill(255);
  stream[stream.length - 1] = 1;
  const body = [0x08, 0xff, (count - 0x7f00) & 255, (count - 0x7f00) >> 8, 0x54, 1, 0, 52, ...stream];
  body.splice(1, 0, 0x41); // one raw literal
  const head = (body.length << 3) | 4 | 1;
  const f = Uint8Array.from([0x28, 0xb5, 0x2f, 0xfd, 0xa4, 0, 0, 2, 0, head & 255, (head >> 8) & 255, head >> 16, ...body, 0, 0, 0, 0]);
  const start = Date.now();
  assert.throws(() => decode(f, 131072), { rule: "TD-ZST-009" });
  assert.ok(Date.now() - start < 500);
});

test("digests", async () => {
  for (const n of [0, 1, 55, 56, 63, 64, 65, 119, 120, 1000]) {
    const bytes = new Uint8Array(n).fill(n);
    assert.equal(toHex(sha256(bytes)), sha(bytes));
    assert.equal(await webDigest(bytes), sha(bytes));
  }
});
