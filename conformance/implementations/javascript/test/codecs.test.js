import { test } from "node:test";
import assert from "node:assert/strict";
import { countEscapes, decodeBitmap, decodeGap, decodeReplace, decodeSteps, exponentOrder } from "../src/codecs.js";
import * as F from "../src/fingerprint.js";
import { DTYPES, laneView, wordArray, wordView } from "../src/dtypes.js";
import { encode, hex, random, coefficient, value } from "./writer.js";

const bad = (rule, message) => {
  throw Object.assign(new Error(message), { rule });
};
const bytes = (text) => Uint8Array.from(Buffer.from(text.replace(/ /g, ""), "hex"));

test("the worked gaps of appendix A.8", () => {
  const gap = (gaps, low, s, m, n) => [...decodeGap(bytes(gaps), bytes(low), s, m, n, bad)];
  assert.deepEqual(gap("03FF1F1D0100", "", 0, 5, 324), [3, 290, 320, 322, 323]);
  assert.deepEqual(gap("000000", "2100", 4, 3, 6), [1, 4, 5]);
  assert.deepEqual(gap("10", "00", 8, 1, 4097), [4096]);
  assert.deepEqual(gap("0001FF01", "101900", 8, 3, 65836), [16, 298, 65835]);
  assert.deepEqual(gap("FF00", "", 0, 1, 256), [255]);
});

test("broken positions", () => {
  const cases = [
    ["TD-POS-005", () => decodeGap(bytes("10"), bytes("00"), 8, 1, 4096, bad)],
    ["TD-POS-004", () => decodeGap(bytes("00FF"), null, 0, 1, 600, bad)],
    ["TD-POS-003", () => decodeGap(bytes("0000"), null, 0, 1, 600, bad)],
    ["TD-POS-003", () => decodeGap(bytes("0000"), null, 0, 3, 600, bad)],
    ["TD-POS-006", () => decodeGap(bytes("000000"), bytes("2110"), 4, 3, 6, bad)],
    ["TD-POS-009", () => decodeBitmap(bytes("0902"), 2, 10, bad)],
    ["TD-POS-009", () => decodeBitmap(bytes("0902"), 4, 10, bad)],
    ["TD-POS-010", () => decodeBitmap(bytes("0904"), 3, 10, bad)],
    ["TD-VAL-003", () => countEscapes(bytes("1F06"), 5, bad)],
    ["TD-VAL-002", () => decodeSteps(bytes("03"), [bytes("FC")], 1, 8, bad)],
    ["TD-VAL-002", () => decodeSteps(bytes("03"), [bytes("FC"), bytes("FF")], 1, 16, bad)],
    ["TD-VAL-002", () => decodeSteps(bytes("03"), ["FC", "FF", "FF", "FF"].map(bytes), 1, 32, bad)],
    ["TD-VAL-002", () => decodeSteps(bytes("03"), ["FC", ...Array(7).fill("FF")].map(bytes), 1, 64, bad)],
  ];
  for (const [rule, run] of cases) assert.throws(run, { rule });
  assert.deepEqual([...decodeBitmap(bytes("0902"), 3, 10, bad)], [0, 3, 9]);
});

test("the worked steps of appendix A.8, and the greatest", () => {
  const step = (base, codes, escape, w) => {
    const planes = escape.match(/../g)?.reverse().map(bytes) ?? [];
    const out = wordArray(1, w);
    const [d] = decodeSteps(bytes(codes), planes, 1, w, bad);
    out[0] = w === 64 ? BigInt(`0x${base}`) + d : parseInt(base, 16) + d;
    return out[0].toString(16).padStart(w / 4, "0").toUpperCase();
  };
  assert.equal(step("3F80", "01", "", 16), "3F81");
  assert.equal(step("3F7F", "00", "", 16), "3F7E");
  assert.equal(step("3F80", "02", "", 16), "3F7E");
  assert.equal(step("3F80", "03", "0000", 16), "3F82");
  assert.equal(step("0000", "03", "8E59", 16), "B8D1");
  assert.equal(step("FF", "01", "", 8), "00");
  assert.equal(step("10", "03", "FB", 8), "90");
  assert.equal(step("00000000", "03", "7EFFFFFC", 32), "3F800000");
  assert.equal(step("00000001", "03", "FFFFFFFB", 32), "80000001");
  assert.equal(step("0000000000000001", "03", "FFFFFFFFFFFFFFFB", 64), "8000000000000001");
  assert.equal(step("0000000000000000", "00", "", 64), "FFFFFFFFFFFFFFFF");
  assert.equal(countEscapes(bytes("1F02"), 5, bad), 2);
});

test("replace", () => {
  assert.deepEqual([...decodeReplace(["80807F80", "3F3F3F3F"].map(bytes), 4, 16)], [0x3f80, 0x3f80, 0x3f7f, 0x3f80]);
  assert.deepEqual([...decodeReplace(["CDCEFD", "CCCCFF", "CC4C7F", "3DBEBF"].map(bytes), 3, 32)],
    [0x3dcccccd, 0xbe4cccce, 0xbf7ffffd]);
});

test("the worked permutations of appendix A.8", () => {
  const words = [0x3f80, 0x3c00, 0, 0x3c10, 0xbf00];
  const listed = (limit, positions) => {
    const { naturals, from } = exponentOrder((visit) => words.forEach((x) => visit((x >> 7) & 255)), limit, 5,
      Uint32Array.from(positions));
    return positions.map((_, k) => naturals[from.indexOf(k)]);
  };
  assert.deepEqual(listed(121, [0, 1, 2, 3, 4]), [2, 1, 3, 0, 4]);
  assert.deepEqual(listed(120, [0, 1, 2, 3, 4]), [2, 0, 1, 3, 4]);
  assert.deepEqual(listed(256, [0, 1, 2, 3, 4]), [2, 1, 3, 4, 0]);
  assert.deepEqual(listed(121, [2, 3]), [3, 0]);
});

test("random streams of every width come back", () => {
  const next = random(7);
  for (const w of [8, 16, 32, 64]) {
    const size = 1n << BigInt(w);
    for (let round = 0; round < 40; round++) {
      const n = 1 + next(2000);
      const listed = [];
      for (let position = next(30); position < n; position += 1 + next(next(2) ? 3 : 900)) {
        const base = (BigInt(next(2 ** 31)) * BigInt(next(2 ** 31)) * 4n + BigInt(next(16))) % size;
        const d = next(3) ? BigInt(1 + next(3)) * (next(2) ? 1n : -1n) : 1n + BigInt(next(2 ** 31)) * 3n % (size - 1n);
        listed.push({ position, base, now: (((base + d) % size) + size) % size });
      }
      if (listed.length === 0) continue;
      const m = listed.length;
      const want = listed.map((l) => l.position);
      for (const shift of [0, 4, 8]) {
        const { gaps, low } = encode({ n, listed, positions: "gap", shift, values: "replace", w });
        assert.deepEqual([...decodeGap(gaps, low, shift, m, n, bad)], want);
        assert.ok(gaps.length <= m + Math.floor((n - m) / (255 * 2 ** shift)));
      }
      assert.deepEqual([...decodeBitmap(encode({ n, listed, positions: "bitmap", values: "replace", w }).bitmap, m, n, bad)], want);
      const steps = encode({ n, listed, positions: "all", values: "step", w });
      const planes = Array.from({ length: w / 8 }, (_, j) => steps[`escapes.${j}`]);
      assert.equal(countEscapes(steps.codes, m, bad), planes[0]?.length ?? 0);
      const d = decodeSteps(steps.codes, planes, m, w, bad);
      assert.deepEqual(listed.map((l, k) => BigInt.asUintN(w, l.base + BigInt(d[k]))), listed.map((l) => l.now));
      const replaced = encode({ n, listed, positions: "all", values: "replace", w });
      assert.deepEqual([...decodeReplace(Array.from({ length: w / 8 }, (_, j) => replaced[`values.${j}`]), m, w)].map(BigInt),
        listed.map((l) => l.now));
    }
  }
});

test("the test values of appendix A.8", () => {
  const w = F.seed("w");
  assert.equal(hex(F.mix(0n)), "e220a8397b1dcdaf");
  assert.equal(hex(F.mix(1n)), "910a2dec89025cc1");
  assert.equal(hex(w), "003f019ce421e750");
  assert.equal(hex(F.seed("é")), "53c333407e55994a");
  assert.equal(hex(F.coefficient(w, 0)), "06b0e25fa27a0ddf");
  assert.equal(hex(F.coefficient(w, 1)), "e4582d4b0bbbb791");
  assert.equal(hex(F.coefficient(w, 65536)), "20ccf4e39b5c78e7");
  const print = (name, w, list) => {
    const words = wordArray(list.length, w);
    list.forEach((x, i) => (words[i] = w === 64 ? BigInt(x) : x));
    return hex(F.tensorFingerprint(F.seed(name), laneView(new Uint8Array(words.buffer), w)));
  };
  assert.equal(print("w", 8, [1]), "06b0e25fa27a0ddf");
  assert.equal(print("w", 16, [0, 1]), "e4582d4b0bbbb791");
  assert.equal(print("w", 32, [0x10000]), "e4582d4b0bbbb791");
  assert.equal(print("w", 8, [0, 0, 255]), "22c5a6a86cb03e01");
  assert.equal(print("w", 8, [0x38, 0xb8]), "961212dbf99ef900");
  assert.equal(print("w", 8, [0x21, 0x43]), "9fe108f803dcd4b2");
  assert.equal(print("w", 64, [0x0001000200030004n]), "e03d6fa0563506aa");
  assert.equal(print("w", 16, [0x3f80, 0, 0xbf80]), "1838f607cecf9100");
  assert.equal(print("w", 32, [0x3f800000, 0x80000000]), "3960cde52346f780");
  assert.equal(print("é", 8, [1, 255]), "3cce9ccab0fc774a");
  const far = Array(65537).fill(0);
  far[65536] = 1;
  assert.equal(print("w", 8, far), "20ccf4e39b5c78e7");
  const wide = Array(16385).fill(0n);
  wide[16384] = 0x0001000200030004n;
  assert.equal(print("w", 64, wide), "a151bb2508fc8d5a");
});

test("the worked values of appendix A.8, and values across blocks", () => {
  assert.equal(hex(value("w", 0, 0x3f810000n, 32)), "c3944ab41bc42f11");
  assert.equal(hex(value("w", 0, 0xbf7ffffen, 32)), "e68753b6a9002431");
  assert.equal(hex(value("w", 1, 0xbf7ffffen, 32)), "9a6729d9b8afd905");
  const sum = (list) => {
    const values = new F.Values(F.seed("w"));
    for (const [lane, x] of list) values.add(lane, x);
    return hex(values.sum());
  };
  assert.equal(sum([[0, 0], [1, 0x3f81]]), "c3944ab41bc42f11");
  const list = [[0, 1], [65535, 65535], [65536, 65535], [200000, 7], [2 ** 33 + 5, 3]];
  assert.equal(sum(list), hex(list.reduce((f, [lane, x]) => f + BigInt(x) * coefficient("w", lane), 0n) & ((1n << 64n) - 1n)));
  const full = Array.from({ length: 65536 }, (_, i) => [i, 65535]);
  assert.equal(sum(full), hex(full.reduce((f, [lane, x]) => f + BigInt(x) * (F.coefficient(F.seed("w"), lane)), 0n) & ((1n << 64n) - 1n)));
});

test("every dtype has its word views", () => {
  for (const { w } of DTYPES.values()) assert.equal(wordView(new Uint8Array(16), w).length, 128 / w);
});
