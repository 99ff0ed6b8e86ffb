/**
 * One Zstandard frame (RFC 8878), checked and decoded as section 7.10 asks.
 *
 * The decoder is our own. The small libraries for browsers are made for sound data: they write out-of-range copies into
 * nothing, take a match from before the start of the output as zeros, and a crafted block of a few bytes can keep them
 * busy for minutes. Here every read and every write is bounded by what was declared, so the work is too.
 *
 * Both functions get `bad(rule, message)`, which throws.
 */
import { xxh64Low } from "./xxh64.js";
import { LIMIT } from "./limits.js";

const BLOCK = 131072;

/**
 * check_frame of section 7.10, the walk over the blocks included.
 * @param {Uint8Array} f stored bytes
 * @param {number} lowest
 * @param {number} highest bounds of the content size
 * @param {(rule: string, message: string) => never} bad
 * @returns {{size: number, window: number, start: number}} start: of the first block
 */
export function checkFrame(f, lowest, highest, bad) {
  const need = (end) => {
    if (end > f.length) bad("TD-ZST-001", "the zstd frame is longer than its stored bytes");
  };
  need(5);
  if (f[0] !== 0x28 || f[1] !== 0xb5 || f[2] !== 0x2f || f[3] !== 0xfd) {
    const skippable = (f[0] & 0xf0) === 0x50 && f[1] === 0x2a && f[2] === 0x4d && f[3] === 0x18;
    bad(skippable ? "TD-ZST-007" : "TD-ZST-001", "does not begin with a zstd frame");
  }
  const descriptor = f[4];
  const flag = descriptor >> 6;
  const single = (descriptor >> 5) & 1;
  if (descriptor & 8) bad("TD-ZST-001", "the reserved bit of the zstd frame header is set");
  if (descriptor & 3) bad("TD-ZST-005", "the zstd frame has a dictionary id");
  let p = 5;
  let window = 0;
  if (!single) {
    need(p + 1);
    const base = 2 ** (10 + (f[p] >> 3));
    window = base + (base / 8) * (f[p] & 7);
    p++;
    if (flag === 0) bad("TD-ZST-002", "the zstd frame has no content size");
  }
  const width = 1 << flag;
  need(p + width);
  let size = flag === 1 ? 256 : 0;
  for (let i = 0; i < width; i++) size += f[p + i] * 2 ** (8 * i); // above 2^53 no longer exact, and beyond any bound
  p += width;
  if (single) window = size;
  if (size < lowest || size > highest) {
    const want = lowest === highest ? `${lowest}` : `${lowest} to ${highest}`;
    bad("TD-ZST-003", `the zstd frame has content size ${size} where the stream has ${want} bytes`);
  }
  if (window > LIMIT.window) bad("TD-ZST-008", `the window of the zstd frame is ${window} bytes`);
  const start = p;
  for (;;) {
    need(p + 3);
    const head = f[p] | (f[p + 1] << 8) | (f[p + 2] << 16);
    const type = (head >> 1) & 3;
    if (type === 3) bad("TD-ZST-001", "a zstd block of the reserved type");
    p += 3 + (type === 1 ? 1 : head >>> 3);
    need(p);
    if (head & 1) break;
  }
  p += descriptor & 4; // the checksum, where there is one
  need(p);
  if (p !== f.length) bad("TD-ZST-006", `${f.length - p} bytes after the zstd frame`);
  return { size, window, start };
}

/** Position of the highest bit that is set. */
const highest = (x) => 31 - Math.clz32(x);

/** Bits [at, at + n) of d, n <= 24; bits before the start are zero. */
function bitsAt(d, at, n) {
  if (at < 0) {
    if (at + n <= 0) return 0;
    return bitsAt(d, 0, at + n) << -at;
  }
  const i = at >> 3;
  return ((d[i] | (d[i + 1] << 8) | (d[i + 2] << 16) | (d[i + 3] << 24)) >>> (at & 7)) & ((1 << n) - 1);
}

/** An FSE decoding table of 2^log states from the counts of its symbols (-1: less than one). */
function fseTable(counts, log, bad) {
  const size = 1 << log;
  const symbol = new Uint8Array(size);
  const next = new Uint16Array(counts.length);
  let top = size - 1;
  for (let s = 0; s < counts.length; s++) {
    if (counts[s] === -1) {
      symbol[top--] = s;
      next[s] = 1;
    } else {
      next[s] = counts[s];
    }
  }
  const step = (size >> 1) + (size >> 3) + 3;
  let at = 0;
  for (let s = 0; s < counts.length; s++) {
    for (let i = 0; i < counts[s]; i++) {
      symbol[at] = s;
      do at = (at + step) & (size - 1); while (at > top);
    }
  }
  if (at !== 0) bad("a zstd FSE table that does not fill up");
  const bits = new Uint8Array(size);
  const base = new Uint16Array(size);
  for (let i = 0; i < size; i++) {
    const x = next[symbol[i]]++;
    bits[i] = log - highest(x);
    base[i] = (x << bits[i]) - size;
  }
  return { log, symbol, bits, base };
}

/** Reads an FSE table description. @returns {{table, end: number}} end: the byte after it */
function readFse(d, from, end, maxLog, maxSymbol, bad) {
  const limit = end * 8;
  let at = from * 8;
  if (at + 4 > limit) bad("a zstd FSE table beyond its block");
  const log = bitsAt(d, at, 4) + 5;
  at += 4;
  if (log > maxLog) bad("a zstd FSE table with too many states");
  const counts = [];
  let left = 1 << log;
  while (left > 0) {
    if (counts.length > maxSymbol) bad("a zstd FSE table with too many symbols");
    const n = highest(left + 1) + 1;
    const lowMask = (1 << (n - 1)) - 1;
    const spare = (1 << n) - 1 - (left + 1);
    let value = bitsAt(d, at, n);
    if ((value & lowMask) < spare) {
      value &= lowMask;
      at += n - 1;
    } else {
      if (value > lowMask) value -= spare;
      at += n;
    }
    const count = value - 1;
    counts.push(count);
    left -= Math.abs(count);
    if (count === 0) {
      let repeat;
      do {
        repeat = bitsAt(d, at, 2);
        at += 2;
        for (let i = 0; i < repeat; i++) counts.push(0);
      } while (repeat === 3 && counts.length <= maxSymbol);
    }
    if (at > limit) bad("a zstd FSE table beyond its block");
  }
  if (left < 0 || counts.length > maxSymbol + 1) bad("a zstd FSE table whose counts do not add up");
  return { table: fseTable(counts, log, bad), end: (at + 7) >> 3 };
}

/** The position of the highest set bit of the last byte, which ends a backward bit stream. */
function streamEnd(d, from, end, bad) {
  if (end <= from || d[end - 1] === 0) bad("a zstd bit stream without end mark");
  return end * 8 - 8 + highest(d[end - 1]);
}

/** Reads a Huffman tree description. */
function readHuffman(d, from, end, bad) {
  if (from >= end) bad("a zstd Huffman table beyond its block");
  const head = d[from];
  let at = from + 1;
  const weights = [];
  if (head >= 128) {
    const count = head - 127;
    const stop = at + ((count + 1) >> 1);
    if (stop > end) bad("a zstd Huffman table beyond its block");
    for (let i = 0; i < count; i++) weights.push(i & 1 ? d[at + (i >> 1)] & 15 : d[at + (i >> 1)] >> 4);
    at = stop;
  } else {
    const stop = at + head;
    if (stop > end) bad("a zstd Huffman table beyond its block");
    const { table, end: start } = readFse(d, at, stop, 6, 255, bad);
    const floor = start * 8;
    let position = streamEnd(d, start, stop, bad);
    // Two states take turns; the stream ends where a state asks for more bits than there are.
    const part = d.subarray(start, stop);
    const states = [0, 0];
    for (const q of [0, 1]) {
      position -= table.log;
      if (position < floor) bad("a zstd Huffman table that is cut off");
      states[q] = bitsAt(part, position - floor, table.log);
    }
    for (let q = 0; ; q ^= 1) {
      if (weights.length >= 254) bad("a zstd Huffman table with too many weights");
      const state = states[q];
      weights.push(table.symbol[state]);
      position -= table.bits[state];
      if (position < floor) {
        weights.push(table.symbol[states[q ^ 1]]);
        break;
      }
      states[q] = table.base[state] + bitsAt(part, position - floor, table.bits[state]);
    }
    at = stop;
  }
  let total = 0;
  for (const w of weights) {
    if (w > 11) bad("a zstd Huffman weight above 11");
    if (w > 0) total += 1 << (w - 1);
  }
  if (total === 0) bad("a zstd Huffman table without weights");
  const log = highest(total) + 1;
  if (log > 11) bad("a zstd Huffman code longer than 11 bits");
  const rest = (1 << log) - total;
  if (rest & (rest - 1)) bad("a zstd Huffman table whose weights do not add up");
  weights.push(highest(rest) + 1);
  if (weights.length > 256) bad("a zstd Huffman table with too many weights");
  const symbol = new Uint8Array(1 << log);
  const bits = new Uint8Array(1 << log);
  let fill = 0;
  for (let w = 1; w <= log; w++) {
    const span = 1 << (w - 1);
    for (let s = 0; s < weights.length; s++) {
      if (weights[s] !== w) continue;
      symbol.fill(s, fill, fill + span);
      bits.fill(log + 1 - w, fill, fill + span);
      fill += span;
    }
  }
  return { huffman: { log, symbol, bits }, end: at };
}

/** Decodes one Huffman stream into out[from, to). */
function huffmanStream(d, huffman, out, from, to, bad) {
  const { log, symbol, bits } = huffman;
  let at = streamEnd(d, 0, d.length, bad);
  for (let i = from; i < to; i++) {
    const entry = bitsAt(d, at - log, log);
    out[i] = symbol[entry];
    at -= bits[entry];
    if (at < 0) bad("a zstd literal stream that is too short");
  }
  if (at !== 0) bad("a zstd literal stream that is too long");
}

const bases = (start, bits) => {
  const out = new Int32Array(bits.length);
  for (let i = 0; i < bits.length; i++) {
    out[i] = start;
    start += 1 << bits[i];
  }
  return out;
};
const LITERAL_BITS = Uint8Array.from([...Array(16).fill(0), 1, 1, 1, 1, 2, 2, 3, 3, 4, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16]);
const MATCH_BITS = Uint8Array.from([...Array(32).fill(0), 1, 1, 1, 1, 2, 2, 3, 3, 4, 4, 5, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16]);
const LITERAL_BASE = bases(0, LITERAL_BITS);
const MATCH_BASE = bases(3, MATCH_BITS);

const never = (message) => {
  throw new Error(message);
};
/** Literal lengths, offsets, match lengths, in the order in which their tables stand: default counts, greatest log. */
const KINDS = [
  { maxLog: 9, maxSymbol: 35, log: 6, counts: [4, 3, ...Array(11).fill(2), 1, 1, 1, ...Array(9).fill(2), 3, 2, 1, 1, 1, 1, 1, -1, -1, -1, -1] },
  { maxLog: 8, maxSymbol: 31, log: 5, counts: [1, 1, 1, 1, 1, 1, 2, 2, 2, ...Array(15).fill(1), -1, -1, -1, -1, -1] },
  { maxLog: 9, maxSymbol: 52, log: 6, counts: [1, 4, 3, 2, 2, 2, 2, 2, 2, ...Array(37).fill(1), ...Array(7).fill(-1)] },
];
for (const kind of KINDS) kind.table = fseTable(kind.counts, kind.log, never);

/**
 * Decodes a frame that checkFrame has let through.
 * @param {Uint8Array} f
 * @param {{size: number, window: number, start: number}} frame
 * @param {(rule: string, message: string) => never} report
 * @returns {Uint8Array} exactly frame.size bytes
 */
export function decodeFrame(f, frame, report) {
  const bad = (message) => report("TD-ZST-009", message);
  const out = new Uint8Array(frame.size);
  const blockMax = Math.min(BLOCK, Math.max(frame.window, 1));
  const memory = { huffman: null, tables: [null, null, null], offsets: [1, 4, 8], literals: null };
  let done = 0;
  let p = frame.start;
  for (let last = false; !last; ) {
    const head = f[p] | (f[p + 1] << 8) | (f[p + 2] << 16);
    const type = (head >> 1) & 3;
    const length = head >>> 3;
    last = (head & 1) === 1;
    p += 3;
    if (length > blockMax) bad(`a zstd block of ${length} bytes`);
    if (type === 2) {
      done = compressedBlock(f.subarray(p, p + length), memory, out, done, Math.min(out.length, done + blockMax), bad);
      p += length;
    } else {
      if (done + length > out.length) bad("the zstd frame decodes to more than its content size");
      if (type === 0) {
        out.set(f.subarray(p, p + length), done);
        p += length;
      } else {
        out.fill(f[p], done, done + length);
        p++;
      }
      done += length;
    }
  }
  if (done !== out.length) bad(`the zstd frame decodes to ${done} bytes, and its content size is ${out.length}`);
  if (!(f[4] & 4)) return out;
  const sum = (f[p] | (f[p + 1] << 8) | (f[p + 2] << 16) | (f[p + 3] << 24)) >>> 0;
  if (sum !== xxh64Low(out)) report("TD-ZST-013", "the checksum of the zstd frame is wrong");
  return out;
}

/** @returns {{literals: Uint8Array, end: number}} */
function readLiterals(d, memory, bad) {
  if (d.length < 1) bad("an empty zstd block");
  const type = d[0] & 3;
  const format = (d[0] >> 2) & 3;
  const little = (n) => {
    if (d.length < n) bad("a zstd literals section beyond its block");
    let x = 0;
    for (let i = 0; i < n; i++) x += d[i] * 2 ** (8 * i);
    return x;
  };
  if (type < 2) {
    const width = format === 1 ? 2 : format === 3 ? 3 : 1;
    const size = Math.floor(little(width) / (width === 1 ? 8 : 16));
    if (size > BLOCK) bad("a zstd literals section that is too long");
    const end = width + (type === 0 ? size : 1);
    if (end > d.length) bad("a zstd literals section beyond its block");
    if (type === 0) return { literals: d.subarray(width, end), end };
    return { literals: new Uint8Array(size).fill(d[width]), end };
  }
  const width = format < 2 ? 3 : format + 2;
  const number = format < 2 ? 10 : format === 2 ? 14 : 18;
  const head = Math.floor(little(width) / 16);
  const size = head % 2 ** number;
  const stored = Math.floor(head / 2 ** number);
  const end = width + stored;
  if (size > BLOCK) bad("a zstd literals section that is too long");
  if (end > d.length) bad("a zstd literals section beyond its block");
  let at = width;
  if (type === 2) {
    const read = readHuffman(d, at, end, bad);
    memory.huffman = read.huffman;
    at = read.end;
  } else if (!memory.huffman) {
    bad("a zstd literals section without a Huffman table to repeat");
  }
  const literals = new Uint8Array(size);
  if (format === 0) {
    huffmanStream(d.subarray(at, end), memory.huffman, literals, 0, size, bad);
    return { literals, end };
  }
  if (at + 6 > end || size < 6) bad("a zstd literals section without its four streams");
  const part = (size + 3) >> 2;
  if (3 * part > size) bad("a zstd literals section too short for four streams");
  let from = at + 6;
  for (let q = 0; q < 4; q++) {
    const to = q === 3 ? end : from + (d[at + 2 * q] | (d[at + 2 * q + 1] << 8));
    if (to > end) bad("a zstd literal stream beyond its block");
    huffmanStream(d.subarray(from, to), memory.huffman, literals, q * part, q === 3 ? size : (q + 1) * part, bad);
    from = to;
  }
  return { literals, end };
}

/** Decodes a compressed block to out[done, limit). @returns {number} the new end */
function compressedBlock(d, memory, out, done, limit, bad) {
  const { literals, end } = readLiterals(d, memory, bad);
  let p = end;
  const byte = () => {
    if (p >= d.length) bad("a zstd sequences section beyond its block");
    return d[p++];
  };
  let count = byte();
  if (count >= 128) count = count < 255 ? ((count - 128) << 8) + byte() : byte() + (byte() << 8) + 0x7f00;
  let taken = 0;
  if (count === 0) {
    if (p !== d.length) bad("a zstd block with bytes after its sequences");
  } else {
    const modes = byte();
    if (modes & 3) bad("reserved bits of a zstd sequences section are set");
    for (let k = 0; k < 3; k++) {
      const kind = KINDS[k];
      const mode = (modes >> (6 - 2 * k)) & 3;
      if (mode === 0) {
        memory.tables[k] = kind.table;
      } else if (mode === 1) {
        const symbol = byte();
        if (symbol > kind.maxSymbol) bad("an unknown code in a zstd sequences section");
        memory.tables[k] = {
          log: 0, symbol: Uint8Array.of(symbol), bits: new Uint8Array(1), base: new Uint16Array(1),
        };
      } else if (mode === 2) {
        const read = readFse(d, p, d.length, kind.maxLog, kind.maxSymbol, bad);
        memory.tables[k] = read.table;
        p = read.end;
      } else if (!memory.tables[k]) {
        bad("a zstd sequences section without a table to repeat");
      }
    }
    const [lengths, offsets, matches] = memory.tables;
    const stream = d.subarray(p);
    let at = streamEnd(stream, 0, stream.length, bad);
    const rep = memory.offsets;
    let ls = bitsAt(stream, (at -= lengths.log), lengths.log);
    let os = bitsAt(stream, (at -= offsets.log), offsets.log);
    let ms = bitsAt(stream, (at -= matches.log), matches.log);
    for (let i = 0; i < count; i++) {
      if (at < 0) bad("a zstd sequence stream that is too short");
      const oc = offsets.symbol[os];
      const mc = matches.symbol[ms];
      const lc = lengths.symbol[ls];
      let value;
      if (oc > 24) { // bitsAt reads no more than 24 bits at once
        at -= oc - 16;
        const high = bitsAt(stream, at, oc - 16);
        at -= 16;
        value = 2 ** oc + high * 65536 + bitsAt(stream, at, 16);
      } else {
        at -= oc;
        value = (1 << oc) + bitsAt(stream, at, oc);
      }
      at -= MATCH_BITS[mc];
      const match = MATCH_BASE[mc] + bitsAt(stream, at, MATCH_BITS[mc]);
      at -= LITERAL_BITS[lc];
      const run = LITERAL_BASE[lc] + bitsAt(stream, at, LITERAL_BITS[lc]);
      if (i < count - 1) {
        at -= lengths.bits[ls];
        ls = lengths.base[ls] + bitsAt(stream, at, lengths.bits[ls]);
        at -= matches.bits[ms];
        ms = matches.base[ms] + bitsAt(stream, at, matches.bits[ms]);
        at -= offsets.bits[os];
        os = offsets.base[os] + bitsAt(stream, at, offsets.bits[os]);
      }
      let offset;
      if (value > 3) {
        offset = value - 3;
        rep[2] = rep[1];
        rep[1] = rep[0];
        rep[0] = offset;
      } else {
        const which = run === 0 ? value : value - 1; // 0 to 2: that earlier offset; 3: the newest less one
        offset = which === 3 ? rep[0] - 1 : rep[which];
        if (which > 1) rep[2] = rep[1];
        if (which > 0) rep[1] = rep[0];
        rep[0] = offset;
      }
      if (taken + run > literals.length) bad("a zstd sequence with more literals than there are");
      if (done + run + match > limit) bad("a zstd block decodes to more than it may");
      for (let j = 0; j < run; j++) out[done + j] = literals[taken + j];
      taken += run;
      done += run;
      if (offset < 1 || offset > done) bad("a zstd match from before the start of the frame");
      for (let j = 0; j < match; j++) out[done + j] = out[done + j - offset];
      done += match;
    }
    if (at !== 0) bad("a zstd sequence stream whose length is not its sequences'");
  }
  const rest = literals.length - taken;
  if (done + rest > limit) bad("a zstd block decodes to more than it may");
  out.set(literals.subarray(taken), done);
  return done + rest;
}
