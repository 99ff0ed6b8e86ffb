"""Chains that another writer made, and that this one goes on with (SPEC.md sections 10 and 11)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from generate.builder import Builder, Pack, dumps, manifest_name, of_chunks, of_plain
from generate.chains import contents, encodings, paths
from generate.codecs import delta_chunks
from generate.good import good_chain
from generate.model import FOREIGN, Model, Random, random_tensor, stepped, tensor, weights
from generate.scenes import line, move, walk
from generate.standard import exponent, setting, standard
from generate.writing import ERRORS, Desk, write

GOES_ON = "WRT-001 WRT-003 MAN-008 CHK-018 OBJ-003 OBJ-014"

#: The modules in which the good chains register themselves.
_CHAINS = (contents, encodings, paths)


def newest(builder: Builder) -> Model:
    """The state of the newest version."""
    return builder.models[max(builder.models)]


def go_on(desk: Desk, share: float = 0.1, **members: Any) -> None:
    """Two versions after the newest, the second after a restart."""
    state = newest(desk.builder)
    version = max(desk.builder.models)
    for step in (1, 2):
        state = stepped(Random(f"go on/{step}"), state, share)
        desk.publish(state, version + step, **members)
        if step == 1:
            desk.restart()


def coded(**coding: Any) -> Builder:
    """A chain whose newest version is a delta with these codecs."""
    rng = Random("coded")
    builder = Builder()
    first: Model = {"a": weights(rng, (16, 20)), "b": random_tensor(rng, "I32", (40,))}
    builder.full(0, first)
    second = stepped(rng, first, 0.2, ["a"])
    features = ["exponent-order"] if coding.get("order") == "exponent" else []
    builder.delta(1, second, 0, coding=coding, features=features)
    return builder


CODINGS: dict[str, dict[str, Any]] = {
    "gap": {},
    "gap-4": {"shift": 4},
    "gap-8": {"shift": 8},
    "bitmap": {"positions": "bitmap"},
    "gap-replace": {"values": "replace"},
    "bitmap-replace": {"positions": "bitmap", "values": "replace"},
    "all-replace": {"positions": "all", "values": "replace"},
    "zstd": {"compression": "zstd"},
}
EXPONENT: dict[str, dict[str, Any]] = {
    "exponent": {"order": "exponent"},
    "exponent-gap-8": {"order": "exponent", "shift": 8, "limit": 120},
    "exponent-bitmap-zstd": {"order": "exponent", "positions": "bitmap", "compression": "zstd"},
}

for slug, coding in CODINGS.items():
    write(
        f"write-after-{slug}",
        f"The newest version of another writer has positions, values and compression {slug}",
        GOES_ON,
        go_on,
        chain=partial(coded, **coding),
    )
for slug, coding in EXPONENT.items():
    write(
        f"write-after-{slug}",
        f"The newest version of another writer is in order {slug}",
        f"{GOES_ON} VER-004",
        partial(go_on, order="exponent"),
        chain=partial(coded, **coding),
        level="writer-exponent",
    )


def plain() -> Builder:
    """A checkpoint as version 0, and a delta with a plain pack in version 1."""
    builder = Builder()
    first, second = walk(2, 11)
    builder.edge(0, first, [of_plain(first, first)])
    chunks = delta_chunks(first, {**second, "b.bias": first["b.bias"]})
    packs: list[Pack] = [of_chunks(chunks, builder.layout(second)), of_plain({"b.bias": second["b.bias"]}, second)]
    builder.edge(1, second, packs, base=0)
    return builder


def other_bytes_of_one_layout() -> Builder:
    """The newest version names a layout that is written with white space and a field of its own."""
    builder = line(walk(1, 12))
    layout = builder.layout(builder.models[0], text=lambda data: data.replace(b",", b" , ")[:-1] + b',"x":1}\n')
    move(builder, 1, walk(2, 12)[1], 0, layout=layout)
    return builder


def empty_deltas() -> Builder:
    """Versions without packs, under numbers with gaps."""
    (state,) = walk(1, 25)
    builder = Builder()
    builder.full(3, state)
    for version, base in ((4, 3), (20, 4), (1000, 20)):
        builder.delta(version, state, base)
    return builder


def later_minor() -> Builder:
    """The chain of a writer of a later minor version, with fields that this one does not know."""
    builder = Builder(minor="1.9", chain=setting(colour="red"))
    first, second = walk(2, 13)
    builder.full(0, first, hook=setting(more=[1, None]))
    builder.delta(1, second, 0, hook=setting(more=[2, None]))
    return builder


def own_packs_gone() -> Builder:
    """The packs of the older versions are gone, and a full shortcut leads to the newest."""
    builder = line(walk(3, 14))
    builder.full(2, builder.models[2], shortcut="squash")
    for version in (0, 1, 2):
        for name in builder.pack_names(version):
            builder.remove(name)
    for name in (manifest_name(0), manifest_name(1)):
        builder.remove(name)
    builder.full(2, builder.models[2], shortcut="squash")
    return builder


def odd_names() -> Builder:
    """Objects of other programs lie among those of the chain, under names that look nearly like its own."""
    builder = line(walk(2, 15))
    builder.latest(1)
    for name in (
        "README.md",
        "manifests/0000000000002.json",
        "manifests/2.json",
        "manifests/000000000009.json.bak",
        "manifests/sub/000000000009.json",
        "manifests/.000000000009.json",
        "packs/checkpoint.safetensors",
        "layouts/old.json",
        "shortcuts/000000000009-000000000001.TAG.json",
        "shortcuts/000000000001.json",
        "files/notes.txt",
    ):
        builder.put(name, b"mine\n")
    return builder


def misleading_hint(version: int) -> Builder:
    builder = line(walk(2, 16))
    builder.latest(version)
    return builder


def chain_of(name: str) -> Callable[[], Builder]:
    return lambda: good_chain(name)


for slug, title, chain in (
    ("plain-packs", "Another writer has published whole checkpoints as plain packs", plain),
    ("another-layout-text", "Another writer has written the layout with other bytes", other_bytes_of_one_layout),
    ("a-later-minor", "Another writer is of a later minor version of the format", later_minor),
    ("a-squash", "The newest version is reached over a shortcut only", own_packs_gone),
    ("odd-names", "Objects lie in the folder that are none of the chain's", odd_names),
    ("a-hint-too-low", "latest.json names an older version than the newest", partial(misleading_hint, 0)),
    ("a-hint-too-high", "latest.json names a version that does not exist", partial(misleading_hint, 7)),
    ("empty-deltas", "Another writer has published empty deltas, under numbers with gaps", empty_deltas),
    ("fitting", "In another writer's chain tensors came and went", chain_of("fitting")),
    ("many-packs", "Another writer has put several packs in each version", chain_of("packs")),
    ("restated-words", "Another writer lists words that do not change", chain_of("restated-words")),
    ("skip-deltas", "Another writer has left shortcuts between versions", chain_of("shortcuts")),
    ("no-fingerprints", "Another writer names no fingerprints objects", chain_of("no-tensor-fingerprints")),
):
    write(f"write-after-{slug}", title, GOES_ON, go_on, chain=chain)


def one_state() -> Builder:
    return line(walk(1, 17))


def full_instead(desk: Desk) -> None:
    """Where the newest version cannot be read, a full version may be made instead, and nothing else."""
    state = stepped(Random("instead"), newest(desk.builder), 0.1)
    path = desk.state(state)
    version = max(desk.builder.models) + 1
    desk.publish(state, version, expect={"any": [{"error": list(ERRORS)}, {"version": version, "state": path}]})
    desk.publish(state, version + 1, full=True)


def without_pack() -> Builder:
    builder = line(walk(2, 18))
    builder.remove(builder.pack_names(1)[0])
    return builder


def altered_pack() -> Builder:
    """The words of the newest version's pack are not those that its manifest tells."""
    states = walk(3, 18)
    builder = line(states[:1])
    chunks = delta_chunks(states[0], states[2])
    builder.edge(1, states[1], [of_chunks(chunks, builder.layout(states[1]))], base=0)
    return builder


def unknown_feature() -> Builder:
    return standard(last=False, features=["strided-slices"])


def foreign_manifest() -> Builder:
    return standard(last=False, manifest=setting(chain=FOREIGN))


def torn_manifest() -> Builder:
    return standard(last=False, text=lambda text: text[: len(text) // 2])


for slug, title, chain in (
    ("a-pack-that-is-gone", "The newest version's pack is gone", without_pack),
    ("words-of-another-state", "The newest version does not lead to the state that its manifest tells", altered_pack),
    ("an-unknown-feature", "The newest version needs a feature that nobody knows", unknown_feature),
    ("a-manifest-of-another-chain", "The newest manifest is of another chain", foreign_manifest),
    ("a-torn-manifest", "The newest manifest is cut off", torn_manifest),
):
    write(
        f"write-after-{slug}",
        f"{title}; a full version can be published all the same",
        "WRT-001 WRT-003 ERR-004 OBJ-003 OBJ-014",
        full_instead,
        chain=chain,
    )
write(
    "write-full-versions-after-another-writer",
    "Full versions are published after those of another writer",
    "MAN-008 OBJ-014 OBJ-003",
    partial(go_on, full=True),
    chain=one_state,
)
write(
    "write-exponent-order-after-standard",
    "A delta in order exponent is published after one of another writer in both orders",
    GOES_ON,
    partial(go_on, share=0.4, order="exponent"),
    chain=lambda: standard(**exponent()),
    level="writer-exponent",
)


def beside_other_files(desk: Desk) -> None:
    """A root without chain.json is no chain yet; what lies in it stays, whether the writer begins one there or not."""
    desk.put({"README.md": b"mine\n", "latest.json.old": b"{}", "packs/checkpoint.safetensors": b"\0" * 8})
    (first,) = walk(1, 19)
    path = desk.state(first)
    desk.publish(first, 0, expect={"any": [{"version": 0, "state": path}, {"error": ["conflict"]}]})


write(
    "write-a-chain-beside-other-files",
    "A folder with files of other programs becomes a chain, or is refused, and the files stay",
    "STO-010 OBJ-003 OBJ-016",
    beside_other_files,
)


def living_writer(desk: Desk, put: Callable[[Builder], None]) -> None:
    """A second writer publishes between two versions of one that goes on living."""
    states = walk(4, 20)
    desk.publish(states[1], 1)
    other = Builder()
    put(other)
    desk.put({name: data for name, data in other.objects.items() if name != "chain.json"})
    desk.publish(states[3], 5)


def other_version(builder: Builder) -> None:
    builder.full(3, stepped(Random("second writer"), walk(4, 20)[2], 0.5))


def other_layout(builder: Builder) -> None:
    builder.full(3, {"z": tensor("I64", (3,), [1, 2, 3]), "c.ids": tensor("U8", (7,), [9] * 7)})


for slug, title, other in (
    ("words", "A second writer publishes other words while the first one lives", other_version),
    ("a-layout", "A second writer publishes another layout while the first one lives", other_layout),
):
    write(
        f"write-after-{slug}-of-a-second-writer",
        f"{title}; its next version is a delta from the second writer's",
        "WRT-001 WRT-003 MAN-008",
        partial(living_writer, put=other),
        chain=lambda: line(walk(1, 20)),
    )


def replaced_chain(desk: Desk) -> None:
    """Another run takes the place of the chain under a writer that lives: it starts anew, or reports a conflict."""
    states = walk(3, 21)
    desk.publish(states[1], 1)
    other = Builder(chain=setting(chain=FOREIGN))
    other.full(1, states[2], hook=setting(chain=FOREIGN))
    desk.put(other.objects)
    path = desk.state(states[0])
    desk.publish(states[0], 2, expect={"any": [{"error": ["conflict"]}, {"version": 2, "state": path}]})


write(
    "write-into-a-chain-that-was-replaced",
    "Another run has taken the chain's place: the writer reports a conflict, or goes on with the other run's version",
    "WRT-001 WRT-003 MAN-008 WRT-004",
    replaced_chain,
    chain=lambda: line(walk(1, 21)),
)


def restarted(desk: Desk) -> None:
    states = walk(4, 22)
    for version, state in enumerate(states):
        desk.publish(state, version)
        desk.restart()


write(
    "write-with-a-restart-after-each-version",
    "The writer is started anew after each version",
    "WRT-003 WRT-001 MAN-008",
    restarted,
)


def lost_and_found(desk: Desk) -> None:
    """The newest version disappears while the writer is down; what it kept of it is no base any more."""
    states = walk(4, 23)
    desk.publish(states[1], 1)
    desk.publish(states[2], 2)
    desk.restart()
    other = Builder()
    other.full(9, states[0])
    desk.put({name: data for name, data in other.objects.items() if name != "chain.json"})
    desk.publish(states[3], 10)


write(
    "write-after-a-restart-onto-another-version",
    "While the writer is down, a second one publishes: what the first one kept is not the newest state any more",
    "WRT-003 WRT-001 MAN-008",
    lost_and_found,
    chain=lambda: line(walk(1, 23)),
)
write(
    "write-after-a-hint-of-another-chain",
    "latest.json is of another chain, and the writer goes on with this one",
    "WRT-004 OBJ-014",
    go_on,
    chain=lambda: hinted(),
)


def hinted() -> Builder:
    builder = line(walk(2, 24))
    builder.put("latest.json", dumps({"tensordelta": "1.0", "chain": FOREIGN, "version": 400}))
    return builder
