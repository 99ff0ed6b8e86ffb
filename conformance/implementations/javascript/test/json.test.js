import { test } from "node:test";
import assert from "node:assert/strict";
import { NOT_INTEGER, parseJson } from "../src/json.js";
import { compareUtf8, utf8Length } from "../src/bytes.js";
import { Budget } from "../src/budget.js";

const parse = (text) => parseJson(typeof text === "string" ? new Uint8Array(Buffer.from(text)) : Uint8Array.from(text), "x");
const value = (text) => parse(`{"a":${text}}`).get("a");
const nested = (levels) => `{"a":${"[".repeat(levels - 1)}${"]".repeat(levels - 1)}}`;

test("what is JSON here", () => {
  assert.equal(parse(' \t\r\n{"a" : [ ] } \n').get("a").length, 0);
  assert.deepEqual(value('[true,false,null,"",0,12]'), [true, false, null, "", 0, 12]);
  assert.equal(value('"\\u00e9\\ud83d\\ude00\\/\\b\\f\\n\\r\\t\\"\\\\é😀\\ufffe\\uffff"'), 'é😀/\b\f\n\r\t"\\é😀\ufffe\uffff');
  assert.equal(value("9007199254740991"), 2 ** 53 - 1);
  assert.equal(value("9007199254740992"), 2n ** 53n);
  for (const text of ["-0", "-1", "1.0", "1e3", "1E+400", "0.5e-3", "9".repeat(4000)]) assert.equal(value(text), NOT_INTEGER);
  assert.equal(parse('{"__proto__":1}').get("__proto__"), 1);
  assert.ok(parse(nested(16)));
});

test("what is none", () => {
  const cases = {
    "TD-JSN-001": [[0x7b, 0xff, 0x7d], [0x7b, 0x22, 0xc0, 0x80, 0x22, 0x3a, 0x31, 0x7d], [0x7b, 0x22, 0xed, 0xa0, 0x80, 0x22, 0x3a, 0x31, 0x7d]],
    "TD-JSN-002": [[0xef, 0xbb, 0xbf, 0x7b, 0x7d]],
    "TD-JSN-003": [
      "", " ", "[]", "1", "null", "{}{}", "{} x", "{", '{"a"}', '{"a":}', '{"a":1,}', "{a:1}", "{'a':1}", '{"a":01}', '{"a":+1}',
      '{"a":.5}', '{"a":1.}', '{"a":1e}', '{"a":0x1}', '{"a":[1,]}', '{"a":[1 2]}', '{"a":"\t"}', '{"a":"\\x"}', '{"a":"\\u12"}',
      '{"a":"\\u12g4"}', '{"a":"', '{"a":tru}', '{"a":True}', "\u00a0{}", "{}\u0000", "\ufeff".slice(1) + "//c\n{}", '{"a":"\\'],
    "TD-JSN-004": ['{"a":1,"a":1}', '{"a":1,"\\u0061":2}', '{"b":[{"x":1,"x":2}]}'],
    "TD-JSN-005": ['{"a":"\\ud83d"}', '{"a":"\\ude00"}', '{"a":"\\ud83dx"}', '{"a":"\\ude00\\ud83d"}', '{"\\ud83d":1}', '{"a":"\\ud83d\\u0041"}'],
    "TD-JSN-007": ['{"a":NaN}', '{"a":Infinity}', '{"a":-Infinity}'],
    "TD-JSN-008": [nested(17), `{"a":${"[".repeat(100000)}`],
  };
  for (const [rule, texts] of Object.entries(cases)) {
    for (const text of texts) assert.throws(() => parse(text), { name: "Rejection", rule }, String(text));
  }
});

test("parsed values are counted", () => {
  const text = new Uint8Array(Buffer.from(`{"a":[${"{},".repeat(20000)}{}]}`));
  assert.throws(() => parseJson(text, "x", new Budget(1e6)), { error: "limit" });
  parseJson(text, "x", new Budget(1e8));
});

test("the order of UTF-8", () => {
  const list = ["", "a", "a\u0000", "ab", "b", "é", "\ud7ff", "\ue000", "\uffff", "😀", "😁", "\u{10ffff}"];
  for (const a of list) {
    assert.equal(utf8Length(a), Buffer.byteLength(a));
    for (const b of list) assert.equal(Math.sign(compareUtf8(a, b)), Buffer.compare(Buffer.from(a), Buffer.from(b)));
  }
});
