"""Plain packs: the checkpoint shards of other programs (SPEC.md section 6.4)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from generate.builder import Builder, Pack, identity, plain_pack, safetensors
from generate.cases import read, reject
from generate.model import DTYPES, Model, Random, ordered, random_tensor, tensor
from generate.pair import Build, pair
from generate.standard import replaced, setting

AREA = "plain"
TWIN = "plain-pack-in-a-delta"
OLD: Model = {"a": tensor("BF16", (5, 8), 0x3F80), "b": tensor("F32", (4, 3), 0x3F800000), "n": tensor("F16", (0, 2))}
NEW: Model = {**OLD, "b": tensor("F32", (4, 3), range(0x40000000, 0x4000000C))}
SHARD: Model = {"b": NEW["b"], "x": tensor("U8", (4,), 9)}
"""What the plain pack holds: a tensor of the layout, and one that the layout lacks."""
Text = Callable[[bytes], bytes]
Header = dict[str, Any]


def shard(held: Model, new: Model, *, text: Text = identity, pad: bytes | None = None, **how: Any) -> Pack:
    """A plain pack; its header's text without padding is changed by `text`."""
    index = {name: number for number, name in enumerate(ordered(new))}
    known = [index[name] for name in held if name in index] or [1]
    words = sum(len(new[name].words) for name in held if name in index)
    data = plain_pack(held, pad=b"", **how)
    stop = 8 + int.from_bytes(data[:8], "little")
    made = safetensors(text(data[8:stop]), data[stop:], pad=pad)
    return Pack(made, "tensors", (min(known), max(known) + 1), words)


def plain(
    *shards: Model,
    old: Model | None = OLD,
    new: Model = NEW,
    pack: Callable[[bytes], bytes] = identity,
    entry: Callable[[dict[str, Any]], Any] = lambda _: None,
    **how: Any,
) -> Build:
    """A delta, or without an old state a full version, of plain packs; what is given is done to each of them."""

    def more(_: Builder, layout: str) -> list[Pack]:
        made = [shard(held, new, **how) for held in shards or (SHARD,)]
        for each in made:
            each.data = pack(each.data)
        return made

    def build() -> Builder:
        return pair(old, new, more=more, entry=entry)

    return build


def valid(slug: str, title: str, rule: str, build: Build, *, full: bool = False) -> None:
    """Register a valid case."""
    read(
        slug,
        area=AREA,
        title=title,
        requirements=[rule],
        chain=build,
        to=0 if full else 1,
        held=None if full else 0,
    )


def fault(
    slug: str,
    title: str,
    rule: str | tuple[str, ...],
    error: str = "malformed",
    twin: str = TWIN,
    *shards: Model,
    **how: Any,
) -> None:
    """Register a fault of the delta of a plain pack."""
    rules = [rule] if isinstance(rule, str) else rule
    reject(slug, area=AREA, title=title, requirements=rules, chain=plain(*shards, **how), error=error, twin=twin)


def _valid() -> None:
    valid(
        TWIN,
        "A delta of a plain pack, which has one tensor of the layout and one that the layout lacks",
        "TD-PCK-019",
        plain(),
    )
    whole = {name: NEW[name] for name in ("n", "b", "a")}
    valid(
        "plain-checkpoint",
        "A full version is a checkpoint of one file, as another program wrote it",
        "TD-PCK-014",
        plain(whole, old=None, metadata={"format": "pt"}),
        full=True,
    )
    valid(
        "plain-checkpoint-of-two-shards",
        "A full version is a checkpoint of two shards",
        "TD-PCK-014",
        plain({"b": NEW["b"], "n": NEW["n"]}, {"a": NEW["a"]}, old=None),
        full=True,
    )
    valid(
        "plain-words-equal-to-the-base",
        "A plain pack has a tensor whose words are those of the base, beside one that changes",
        "TD-MAN-011",
        plain({"a": OLD["a"], "b": NEW["b"]}),
    )
    other = {**OLD, "b": tensor("I32", (3, 4), range(12)), "c": tensor("F64", (2,), [1 << 63, 0x7FF0000000000001])}
    valid(
        "plain-tensors-that-fitting-zeroed",
        "A plain pack has a tensor of another dtype and shape than the base's, and a new one",
        "TD-PCK-019",
        plain({"b": other["b"], "c": other["c"]}, new=other),
    )
    rng = Random(950)
    every = {f"t.{dtype.lower()}": random_tensor(rng, dtype, (2, 4)) for dtype in DTYPES}
    valid(
        "plain-of-every-dtype",
        "A plain pack has a tensor of each dtype",
        "TD-WRD-003",
        plain(every, old=None, new=every),
        full=True,
    )
    small = {"none": tensor("F32", (3, 0)), "one": tensor("F32", (), 0x7F800001), "two": tensor("U8", (1,) * 9, 8)}
    valid(
        "plain-scalars-and-no-words",
        "A plain pack has a scalar, a tensor of nine dimensions and one without words",
        "TD-LAY-006",
        plain(small, old=None, new=small),
        full=True,
    )
    names = {"é": tensor("U8", (2,), [1, 2]), "\U00010000": tensor("U8", (2,), [3, 4]), 'q"\\\n': tensor("U8", (1,), 5)}
    decomposed = {"e\u0301": tensor("U8", (2,), [6, 7])}
    valid(
        "plain-names-beyond-ascii",
        "Names are compared by their bytes: e and a combining accent is not é",
        "TD-TRM-003",
        plain({**decomposed, **names}, old=None, new=names),
        full=True,
    )
    valid(
        "plain-names-with-escapes",
        "The name of a tensor is written with an escape",
        "TD-TRM-003",
        plain(text=replaced(b'"b"', b'"\\u0062"')),
    )
    table = {"tensordelta": '{"tensordelta":"2.0"}', "format": "np"}
    valid(
        "plain-with-a-table-that-means-nothing",
        "The metadata of a plain pack have a key tensordelta",
        "TD-PCK-014",
        plain(metadata=table),
    )
    valid("plain-with-empty-metadata", "The metadata of a plain pack are empty", "TD-PCK-014", plain(metadata={}))
    valid(
        "plain-header-after-its-object",
        "White space of all kinds follows the header's object of a plain pack",
        "TD-PCK-006",
        plain(pad=b"\t\r\n   "),
    )
    valid("plain-not-aligned", "The buffer of a plain pack is aligned to nothing", "TD-PCK-006", plain(pad=b" " * 3))

    def turned(header: Header) -> None:
        members = [*reversed(header.items())]
        header.clear()
        header.update(members)

    valid(
        "plain-entries-in-reverse",
        "The entries of a plain pack stand in the reverse of their order in the buffer",
        "TD-PCK-005",
        plain(header=turned),
    )
    odd = b'{"note":[-0,1e999,{"\\uffff":null}],"shape2":"x",'
    valid(
        "plain-entries-with-other-members",
        "Entries of a plain pack have other members, of any kind",
        "TD-PCK-014",
        plain(text=lambda text: text.replace(b'{"dtype"', odd + b'"dtype"')),
    )
    for slug, title, shape in (
        ("with-a-zero-and-2-64-minus-1", "of shape [2^64 - 1, 0]", [(1 << 64) - 1, 0]),
        ("of-17-dimensions", "of 17 dimensions", [1] * 16 + [0]),
        ("beyond-2-48", "with a dimension 2^49 beside a 0", [0, 1 << 49]),
    ):
        entry = {"dtype": "F32", "shape": shape, "data_offsets": [48, 48]}
        valid(
            f"plain-unwanted-tensor-{slug}",
            f"A plain pack has a tensor {title}, which the layout lacks",
            "TD-PCK-017",
            plain(header=setting(y=entry)),
        )
    entry = {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]}
    valid(
        "plain-unwanted-names",
        "A plain pack has tensors with no name, and with a name of 2000 bytes, which no layout could have",
        "TD-PCK-017",
        plain(header=setting(**{"": entry, "x" * 2000: entry})),
    )
    read(
        "plain-nested-17-levels",
        area=AREA,
        title="An unknown member of an entry is nested so that the header has 17 levels: the reader may reject it",
        requirements=["TD-PCK-022"],
        chain=plain(text=replaced(b'{"dtype"', b'{"deep":' + b"[" * 15 + b"]" * 15 + b',"dtype"')),
        expect={
            "any": [{"version": 1, "state": "expected.safetensors"}, {"error": ["limit"], "state": "held.safetensors"}]
        },
        verify=None,
    )
    valid(
        "plain-nested-16-levels",
        "An unknown member of an entry is nested so that the header has 16 levels",
        "TD-PCK-014",
        plain(text=replaced(b'{"dtype"', b'{"deep":' + b"[" * 14 + b"]" * 14 + b',"dtype"')),
    )


def _tensors() -> None:
    as_integers = {"b": NEW["b"]._replace(dtype="I32")}
    fault(
        "plain-tensor-of-another-dtype",
        "A tensor of a plain pack is I32, in the layout F32",
        "TD-PCK-015",
        "malformed",
        TWIN,
        as_integers,
    )
    fault(
        "plain-tensor-of-another-shape",
        "A tensor of a plain pack has the shape [3, 4], in the layout [4, 3]",
        "TD-PCK-015",
        "malformed",
        TWIN,
        {"b": NEW["b"]._replace(shape=(3, 4))},
    )
    fault(
        "plain-tensor-of-another-rank",
        "A tensor of a plain pack has the shape [12], in the layout [4, 3]",
        "TD-PCK-015",
        "malformed",
        TWIN,
        {"b": NEW["b"]._replace(shape=(12,))},
    )
    fault(
        "plain-tensor-without-words-of-another-shape",
        "A tensor without words has another shape in a plain pack than in the layout",
        "TD-PCK-015",
        "malformed",
        TWIN,
        {"b": NEW["b"], "n": tensor("F16", (0, 3))},
    )
    fault(
        "plain-tensor-without-words-of-another-dtype",
        "A tensor without words has another dtype in a plain pack than in the layout",
        "TD-PCK-015",
        "malformed",
        TWIN,
        {"b": NEW["b"], "n": tensor("BF16", (0, 2))},
    )
    more = {"x": tensor("U8", (4,), 9)}
    fault(
        "plain-pack-of-unwanted-tensors",
        "A second plain pack has no tensor of the layout",
        "TD-PCK-016",
        "malformed",
        TWIN,
        SHARD,
        more,
    )
    fault("plain-pack-of-no-tensors", "A second plain pack has no tensors", "TD-PCK-016", "malformed", TWIN, SHARD, {})
    fault(
        "plain-words-altered",
        "A word of a plain pack is not the one that the manifest's fingerprint counts",
        "TD-RDR-007",
        "integrity",
        TWIN,
        {"b": tensor("F32", (4, 3), [*range(0x40000000, 0x4000000B), 5]), "x": SHARD["x"]},
    )
    fault(
        "plain-changed-counts-unwanted-words",
        "Changed counts the words of a tensor that the layout lacks",
        "TD-MAN-011",
        entry=setting(changed=16),
    )
    fault(
        "plain-changed-counts-differences",
        "Changed counts the words that differ from the base, and not all",
        "TD-MAN-011",
        "malformed",
        "plain-words-equal-to-the-base",
        {"a": OLD["a"], "b": NEW["b"]},
        entry=setting(changed=12),
    )
    fault(
        "plain-tensors-counts-unwanted-tensors",
        "The range of tensors of a plain pack is one too wide",
        "TD-MAN-010",
        entry=setting(tensors=[1, 3]),
    )
    fault(
        "plain-pack-named-as-chunks",
        "The content of a plain pack is said to be chunks",
        "TD-PCK-010",
        entry=setting(content="chunks"),
    )


def _entries() -> None:
    def on(**members: Any) -> dict[str, Any]:
        return {"header": lambda header: header["x"].update(members)}

    def drop(member: str) -> dict[str, Any]:
        return {"header": lambda header: header["x"].pop(member)}

    empty = {"dtype": "U8", "shape": [0], "data_offsets": [52, 52]}
    rule = "TD-PCK-014"
    fault(
        "plain-dtype-unknown",
        "A tensor that the layout lacks has the dtype F8_E3M4",
        "TD-PCK-018",
        "unsupported",
        **on(dtype="F8_E3M4"),
    )
    fault(
        "plain-dtype-unknown-of-no-words",
        "A tensor without words that the layout lacks has the dtype I128",
        "TD-PCK-018",
        "unsupported",
        header=setting(y={**empty, "dtype": "I128"}),
    )
    for member in ("dtype", "shape", "data_offsets"):
        fault(
            f"plain-entry-without-{member.replace('_', '-')}",
            f"A tensor that the layout lacks has no {member}",
            rule,
            **drop(member),
        )
    for slug, title, shape in (
        ("of-fewer-elements", "has one element less than bytes", [3]),
        ("of-more-elements", "has one element more than bytes", [5]),
        ("with-a-string", "has a string in its shape", ["4"]),
        ("with-a-fraction", "has 4.0 in its shape", [4.0]),
        ("with-a-negative-number", "has two negative numbers in its shape", [-2, -2]),
        ("with-true", "has true in its shape", [4, True]),
        ("that-is-a-number", "has a number for a shape", 4),
        ("that-is-null", "has null for a shape", None),
    ):
        fault(f"plain-shape-{slug}", f"A tensor that the layout lacks {title}", rule, **on(shape=shape))
    for slug, title, shape in (
        ("that-wraps-to-0", "[2^32, 2^32], whose product is 0 modulo 2^64", [1 << 32, 1 << 32]),
        ("of-2-63-and-2", "[2^63, 2], whose product is 0 modulo 2^64", [1 << 63, 2]),
        ("with-2-64", "[0, 2^64]", [0, 1 << 64]),
    ):
        fault(
            f"plain-shape-{slug}",
            f"A tensor without bytes that the layout lacks has the shape {title}",
            rule,
            header=setting(y={**empty, "shape": shape}),
        )
    fault(
        "plain-wanted-tensor-of-fewer-bytes",
        "A tensor of the layout has a word less in a plain pack than its shape",
        rule,
        header=lambda h: (h["b"].update(data_offsets=[0, 44]), h["x"].update(shape=[8], data_offsets=[44, 52])),
    )
    for dtype in ("F4", "F6_E2M3"):
        name = dtype.lower().replace("_", "-")
        valid(
            f"plain-unwanted-tensor-of-{name}",
            f"A tensor of {dtype} that the layout lacks has whole bytes",
            "TD-PCK-017",
            plain(
                header=lambda h, dtype=dtype: h["x"].update(
                    dtype=dtype,
                    shape=[32 // DTYPES[dtype][0]] if dtype == "F4" else [4],
                    data_offsets=[48, 52 if dtype == "F4" else 51],
                ),
                pack=identity if dtype == "F4" else lambda data: data[:-1],
            ),
        )
    fault(
        "plain-shape-of-half-a-byte",
        "A tensor of F4 that the layout lacks has seven elements in four bytes",
        rule,
        twin="plain-unwanted-tensor-of-f4",
        **on(dtype="F4", shape=[7]),
    )
    for slug, title, entry in (
        ("null", "null", None),
        ("array", "an array", ["U8", [0], [52, 52]]),
        ("string", "a string", "U8"),
    ):
        fault(f"plain-entry-{slug}", f"An entry of a plain pack is {title}", rule, header=setting(y=entry))
    for slug, title, metadata in (
        ("null", "are null", None),
        ("array", "are an array", []),
        ("of-a-number", "have a number", {"step": 1}),
        ("of-null", "have a null", {"step": None}),
        ("of-an-object", "have an object", {"step": {}}),
    ):
        fault(
            f"plain-metadata-{slug}",
            f"The metadata of a plain pack {title}",
            rule,
            header=setting(__metadata__=metadata),
        )


_valid()
_tensors()
_entries()
