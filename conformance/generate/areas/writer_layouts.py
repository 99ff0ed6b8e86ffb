"""What a writer makes of layouts, names, version numbers, files and annotations of every kind (SPEC.md section 4)."""

from __future__ import annotations

from typing import Any

from generate.areas.writer import ends_changed
from generate.builder import plain_pack
from generate.model import DTYPES, Model, Random, Tensor, ordered, random_tensor, tensor
from generate.scenes import little, walk
from generate.writing import ERRORS, Desk, Script, base, lines, share, write

NUMBERS = tensor("F32", (2, 3), [1, 2, 0, 0x80000000, 5, 6])


def with_b(each: Tensor | None, name: str = "b") -> Model:
    """A state of which one tensor is this one, or is not there."""
    state: Model = {"a": tensor("U8", (3,), [1, 2, 3]), "c": tensor("BF16", (2,), [0x3F80, 0])}
    return state if each is None else {**state, name: each}


def tensors(slug: str, title: str, *states: Model) -> None:
    write(f"write-{slug}", title, "CHK-018 MAN-008 FPR-007 WRT-004", lines(*states))


WITHOUT, WITH = with_b(None), with_b(NUMBERS)


def named(*names: str, add: int = 0) -> Model:
    """A tensor of each name."""
    return {name: tensor("U16", (2,), [number + 1, number + 2 + add]) for number, name in enumerate(names)}


def names(slug: str, title: str, *names: str) -> None:
    write(f"write-names-{slug}", title, "WRT-004 LIM-006 CHK-018", lines(named(*names), named(*names, add=1)))


def shuffled() -> bytes:
    """A state file of another program: metadata, and tensors in the reverse of their order."""
    state = share(0.03)
    return plain_pack(state, order=ordered(state)[::-1], metadata={"format": "pt", "tensordelta": "mine"}, pad=b"")


def twice() -> bytes:
    """A state file that lists a tensor twice, with different words."""
    state = {"a": WITHOUT["a"], "A": tensor("U8", (3,), [9, 2, 3]), "c": WITHOUT["c"]}
    return plain_pack(state, pad=b"").replace(b'"A"', b'"a"')


#: Small states that follow one another.
FIRST, SECOND, THIRD, FOURTH = walk(4, 7)
CONFIG, TOKENS = b'{"model_type": "tiny"}', b"a b c\n" * 40


def numbers(*versions: int | None) -> Script:
    """Publish states under these numbers; None: the writer chooses."""

    def script(desk: Desk) -> None:
        for state, version in zip((FIRST, SECOND, THIRD, FOURTH), versions, strict=False):
            desk.publish(state, version)

    return script


def second_refused(
    slug: str,
    title: str,
    twin: str,
    state: Model = SECOND,
    rules: str = "LIM-006 ERR-004",
    first: dict[str, Any] | None = None,
    **asked: Any,
) -> None:
    """After a good version the writer must refuse one, and then publish a good one again."""

    def script(desk: Desk) -> None:
        desk.publish(FIRST, 0, **first or {}).publish(state, 1, error=ERRORS, **asked).publish(SECOND, 1)

    write(f"write-{slug}", title, rules, script, twin=f"write-{twin}")


def file_name(slug: str, title: str, *names: str, rules: str = "WRT-004") -> None:
    """Files with names that the writer must refuse."""

    def script(desk: Desk) -> None:
        desk.publish(FIRST, 0, files={"config.json": CONFIG})
        desk.publish(SECOND, 1, files=dict.fromkeys(names, CONFIG), error=ERRORS)

    write(f"write-file-name-{slug}", title, rules, script, twin="write-files")


# fmt: off
# -- tensors -----------------------------------------------------------------------------------------------------------
tensors("tensors-added", "A tensor is added, between two others", WITHOUT, WITH)
tensors("tensors-removed", "A tensor is removed, from between two others", WITH, WITHOUT)
tensors("tensors-removed-and-added", "A tensor is removed, and added again", WITH, WITHOUT, WITH)
tensors("tensors-renamed", "A tensor gets another name, and another place with it", WITH, with_b(NUMBERS, "z"))
tensors("tensors-reshaped", "A tensor gets another shape of as many elements, with the same words",
    WITH, with_b(NUMBERS._replace(shape=(3, 2))))
tensors("tensors-resized", "A tensor becomes longer, and then shorter",
    *(with_b(tensor("F32", (len(words),), words)) for words in ([1, 2, 3, 4], [1, 2, 3, 4, 0, 6], [1, 2])))
tensors("tensors-retyped", "A tensor gets another dtype of as many bits, with the same words",
    WITH, with_b(NUMBERS._replace(dtype="I32")))
tensors("tensors-widened", "A tensor gets a dtype of more bits",
    with_b(tensor("BF16", (2,), [0x3F80, 1])), with_b(tensor("F32", (2,), [0x3F800000, 0x10000])))
tensors("tensors-reshaped-to-zeros", "A tensor gets another shape, and its words all become 0: nothing is listed",
    WITH, with_b(tensor("F32", (3, 2))))
tensors("tensors-added-of-zeros", "A tensor of zero words is added", WITHOUT, with_b(tensor("F32", (2, 3))))
tensors("tensors-all-at-once",
    "Tensors are added, removed, renamed, reshaped and retyped in one version, beside one that changes",
    {"a": NUMBERS, "b": NUMBERS, "c": NUMBERS, "d": NUMBERS, "e": tensor("U8", (4,), [1, 2, 3, 4])},
    {"a": NUMBERS._replace(shape=(6,)), "b": NUMBERS._replace(dtype="U32"), "cc": NUMBERS,
        "e": tensor("U8", (4,), [1, 9, 3, 4]), "f": tensor("I16", (2,), [7, 8])})
tensors("tensors-emptied", "A model loses all of its tensors, and gets them back", WITH, {}, WITH)
tensors("tensors-empty", "A chain begins with a state without tensors", {}, {}, WITHOUT)
tensors("tensors-scalars-and-zero-sizes", "Scalars and tensors without elements, some of which come and go",
    {"none": tensor("BF16", (3, 0, 2)), "one": tensor("F32", (), [7]), "x": tensor("F4", (0,))},
    {"none": tensor("BF16", (3, 0, 2)), "one": tensor("F32", (), [8]), "y": tensor("I8", (0,))},
    {"none": tensor("BF16", (0,)), "one": tensor("F32", (1,), [8]), "z": tensor("U64", (), [0])})
tensors("tensors-only-zero-sizes", "All tensors are without elements, and get other shapes",
    {"a": tensor("F64", (0,))}, {"a": tensor("F64", (0, 5))})
tensors("many-tensors", "Three hundred tensors of one word, of which every third changes",
    {f"layer.{n}.scale": tensor("BF16", (1,), [n]) for n in range(300)},
    {f"layer.{n}.scale": tensor("BF16", (1,), [n + (n % 3 == 0)]) for n in range(300)})
tensors("sixteen-dimensions", "A tensor of 16 dimensions",
    {"w": tensor("U8", (1, 2) * 8, list(range(256)))}, {"w": tensor("U8", (1, 2) * 8, [0, *range(255)])})
tensors("mixed-dtypes", "Tensors of all dtypes in one state, and a word of each changes",
    {name: random_tensor(Random(name), name, (8,)) for name in DTYPES},
    {name: ends_changed(name, 8)["w"] for name in DTYPES})

# -- names -------------------------------------------------------------------------------------------------------------
names("long", "Names of 1,024 bytes of UTF-8, of one and of four bytes a character", "n" * 1024, "\U0001f9ee" * 256)
names("not-normalised", "Two names that Unicode normalisation would make one",
    "caf\u00e9", "cafe\u0301", "\u212b", "\u00c5")
names("beyond-the-basic-plane", "Names whose order by UTF-8 is not that by UTF-16 code units",
    "\uff5e", "\U00010000", "\uffff", "\ue000")
names("of-any-characters",
    "Names with quotes, backslashes, control characters, slashes, white space and noncharacters",
    '"', "\\", "\n", "\x00", "\x7f", "../up", "/", " ", ".", "\ufdd0", "\u2028")
names("like-those-of-streams", "Names that a pack uses for its streams, and the key of its table",
    "0.gaps", "0.codes", "1.values.0", "tensordelta", "__metadata", "metadata__")
names("that-begin-with-another", "Names of which one is the beginning of another", "a", "a.b", "a-", "a0", "A", "aa")
write("write-from-an-unsorted-file",
    "The state to publish lies in a file with metadata, and with its tensors in another order than the layout's",
    "WRT-004 CHK-018", lambda desk: desk.publish(base(), 0)
    .publish(shuffled(), 1, expect={"version": 1, "state": desk.state(share(0.03))}))
write("write-from-a-file-with-a-tensor-twice",
    "A tensor stands twice in the file to publish: it holds no state, and it is no plain pack either",
    "WRT-004 ERR-004", lambda desk: desk.publish(base(), 0).publish(twice(), error=ERRORS),
    twin="write-from-an-unsorted-file")
write("write-headers-of-all-lengths", "Packs whose headers differ in length by one byte after another",
    "PCK-007 CHK-018", lines(*({"n" * length: tensor("U16", (1,), [length])} for length in range(1, 9))))

# -- numbers, files and annotations ------------------------------------------------------------------------------------
write("write-numbers-with-gaps", "Versions 7, 100 and 999999999998, and one under the greatest number there is",
    "OBJ-002 OBJ-014 MAN-008", numbers(7, 100, 999_999_999_998, 999_999_999_999))
write("write-numbers-of-its-own", "Four versions under numbers that the writer chooses",
    "OBJ-014 OBJ-002", numbers(None, None, None, None))
write("write-a-number-after-a-gap", "The writer chooses a number after one that was given",
    "OBJ-014", numbers(0, 41, None))
write("write-no-number-left", "The greatest number is taken, and there is none for another version",
    "LIM-006 OBJ-014 ERR-004", lambda desk: desk.publish(FIRST, 999_999_999_999).publish(SECOND, error=ERRORS),
    twin="write-numbers-with-gaps")
write("write-a-number-too-great", "A version is to have a number of 13 digits",
    "LIM-006 OBJ-002", lambda desk: desk.publish(FIRST, 5).publish(SECOND, 10**12, error=ERRORS),
    twin="write-numbers-with-gaps")
write("write-a-number-in-a-gap", "A version is to have a number that is free, but not greater than all there are",
    "OBJ-014", lambda desk: desk.publish(FIRST, 3).publish(SECOND, 9)
    .publish(THIRD, 5, error=ERRORS).publish(THIRD, 10), twin="write-numbers-with-gaps")
write("write-files", "Files beside the weights: two, then one of them changed, then the same, then none",
    "PTH-007 OBJ-012 WRT-004", lambda desk: desk
    .publish(FIRST, 0, files={"config.json": CONFIG, "tokenizer/vocab.txt": TOKENS})
    .publish(SECOND, 1, files={"config.json": CONFIG, "tokenizer/merges.txt": b""})
    .publish(THIRD, 2, files={"config.json": CONFIG})
    .publish(FOURTH, 3))
write("write-two-files-of-one-content", "Two files of the same bytes under two names",
    "PTH-007 WRT-004", lambda desk: desk.publish(little(), 0, files={"a.json": CONFIG, "b/a.json": CONFIG}))
write("write-annotations", "Annotations, and as many and as long ones as there may be",
    "WRT-004 LIM-006", lambda desk: desk
    .publish(FIRST, 0, annotations={"step": "420", "": "", "näme": '"\\\n\u2028\U0001f9ee'})
    .publish(SECOND, 1, annotations={f"{n:02}": "v" * (n and 4094 * (n == 63)) for n in range(64)}))
second_refused("too-many-annotations", "65 annotations are asked for", "annotations", rules="LIM-006",
    first={"annotations": {"step": "420"}}, annotations={f"{n}": "" for n in range(65)})
second_refused("too-long-annotations", "An annotation of 4,097 bytes is asked for", "annotations", rules="LIM-006",
    first={"annotations": {"step": "420"}}, annotations={"a": "é" * 2048})
second_refused("a-name-too-long", "A tensor has a name of 1,025 bytes", "names-long", named("n" * 1025))
second_refused("seventeen-dimensions", "A tensor has 17 dimensions",
    "sixteen-dimensions", {"w": tensor("U8", (1,) * 17, [3])})
second_refused("too-many-elements",
    "A tensor without elements has dimensions other than 0 whose product is greater than 2^48",
    "tensors-scalars-and-zero-sizes", {"w": tensor("U8", (0, 1 << 30, 1 << 19))})
file_name("escape", "A file is to lie outside the folder of the checkpoint", "../config.json")
file_name("absolute", "A file is to have an absolute name", "/config.json")
file_name("hidden", "A file is to have a name that begins with a dot", ".config")
file_name("too-long", "A file is to have a name of 201 characters", "c" * 201, rules="LIM-006")
file_name("below-another", "A file is to lie below the name of another file", "a", "a/b")
