"""Chains that another writer made, and that this one continues (SPEC.md sections 10 and 11)."""

from __future__ import annotations

from functools import partial
from typing import Any

from generate.builder import Builder, dumps, of_chunks, of_plain
from generate.chains import contents, encodings, paths
from generate.codecs import delta_chunks
from generate.good import good_chain
from generate.graph import Chain, graph
from generate.model import FOREIGN, FORMAT, Model, Random, random_tensor, stepped, tensor, weights
from generate.scenes import line, move, walk
from generate.standard import exponent, setting, standard
from generate.writing import ERRORS, Desk, script, write

GOES_ON = "WRT-001 WRT-003 MAN-008 CHK-018 OBJ-003 OBJ-014"

#: The modules in which the good chains register themselves.
_CHAINS = (contents, encodings, paths)


def go_on(desk: Desk, share: float = 0.1, **members: Any) -> None:
    """Two versions after the newest, the second after a restart."""
    version = max(desk.builder.models)
    state = stepped(Random("go on/1"), desk.builder.models[version], share)
    desk.publish(state, version + 1, **members).restart()
    desk.publish(stepped(Random("go on/2"), state, share), version + 2, **members)


# -- codecs ------------------------------------------------------------------------------------------------------------


def coded(coding: dict[str, Any]) -> Builder:
    """A chain whose newest version is a delta with these codecs."""
    rng = Random("coded")
    builder = Builder()
    first: Model = {"a": weights(rng, (16, 20)), "b": random_tensor(rng, "I32", (40,))}
    builder.full(0, first)
    second = stepped(rng, first, 0.2, ["a"])
    features = ["exponent-order"] if coding.get("order") == "exponent" else []
    builder.delta(1, second, 0, coding=coding, features=features)
    return builder


def after_codecs(slug: str, **coding: Any) -> None:
    title = f"The newest version of another writer has positions, values and compression {slug}"
    write(f"write-after-{slug}", title, GOES_ON, go_on, chain=partial(coded, coding))


def after_order(slug: str, **coding: Any) -> None:
    title = f"The newest version of another writer is in order {slug}"
    chain = partial(coded, {"order": "exponent", **coding})
    steps = partial(go_on, order="exponent")
    write(f"write-after-{slug}", title, f"{GOES_ON} VER-004", steps, chain=chain, level="writer-exponent")


after_codecs("gap")
after_codecs("gap-4", shift=4)
after_codecs("gap-8", shift=8)
after_codecs("bitmap", positions="bitmap")
after_codecs("gap-replace", values="replace")
after_codecs("bitmap-replace", positions="bitmap", values="replace")
after_codecs("all-replace", positions="all", values="replace")
after_codecs("zstd", compression="zstd")
after_order("exponent")
after_order("exponent-gap-8", shift=8, limit=120)
after_order("exponent-bitmap-zstd", positions="bitmap", compression="zstd")

# -- what else another writer may have done ----------------------------------------------------------------------------


def plain() -> Builder:
    """A checkpoint as version 0, and a delta with a plain pack in version 1."""
    builder = Builder()
    first, second = walk(2, 11)
    builder.edge(0, first, [of_plain(first, first)])
    chunks = delta_chunks(first, {**second, "b.bias": first["b.bias"]})
    packs = [of_chunks(chunks, builder.layout(second)), of_plain({"b.bias": second["b.bias"]}, second)]
    builder.edge(1, second, packs, base=0)
    return builder


def other_bytes_of_one_layout() -> Builder:
    """The newest version names a layout that is written with white space and a field of its own."""
    builder = line(walk(1, 12))
    layout = builder.layout(builder.models[0], text=lambda data: data.replace(b",", b" , ")[:-1] + b',"x":1}\n')
    move(builder, 1, walk(2, 12)[1], 0, layout=layout)
    return builder


def unknown_fields() -> Builder:
    """The chain of a writer whose objects have fields that this version does not know."""
    builder = Builder(chain=setting(colour="red"))
    first, second = walk(2, 13)
    builder.full(0, first, hook=setting(more=[1, None]))
    builder.delta(1, second, 0, hook=setting(more=[2, None]))
    return builder


def own_packs_gone() -> Builder:
    """The packs of the older versions are gone, and a full shortcut leads to the newest."""
    builder = graph("0 gone deleted -> 1 gone deleted -> 2 gone", seed=14)
    builder.full(2, builder.models[2], shortcut="squash")
    return builder


def odd_names() -> Builder:
    """Objects of other programs lie among those of the chain, under names similar to its own."""
    builder = hinted(1, seed=15)
    for name in (
        "README.md", "manifests/0000000000002.json", "manifests/2.json", "manifests/000000000009.json.bak",
        "manifests/sub/000000000009.json", "manifests/.000000000009.json", "packs/checkpoint.safetensors",
        "layouts/old.json", "shortcuts/000000000009-000000000001.TAG.json", "shortcuts/000000000001.json",
        "files/notes.txt",
    ):  # fmt: skip
        builder.put(name, b"mine\n")
    return builder


def hinted(version: int, seed: int = 16) -> Builder:
    """Versions 0 and 1, and this one in `latest.json`."""
    builder = line(walk(2, seed))
    builder.latest(version)
    return builder


def hinted_by_another_chain() -> Builder:
    builder = line(walk(2, 24))
    builder.put("latest.json", dumps({"tensordelta": FORMAT, "chain": FOREIGN, "version": 400}))
    return builder


def empty_deltas() -> Builder:
    """Versions without packs, under numbers with gaps."""
    return graph("3 -> 4 -> 20 -> 1000", dict.fromkeys((3, 4, 20, 1000), walk(1, 25)[0]))


def after(slug: str, title: str, chain: Chain | str) -> None:
    """Two versions are published after those of another writer; a text is the name of a good chain."""
    builder = partial(good_chain, chain) if isinstance(chain, str) else chain
    write(f"write-after-{slug}", title, GOES_ON, go_on, chain=builder)


# fmt: off
after("plain-packs", "Another writer has published whole checkpoints as plain packs", plain)
after("another-layout-text", "Another writer has written the layout with other bytes", other_bytes_of_one_layout)
after("unknown-fields", "Another writer's objects have fields that this version does not know", unknown_fields)
after("a-squash", "The newest version is reached over a shortcut only", own_packs_gone)
after("odd-names", "Objects lie in the folder that are none of the chain's", odd_names)
after("a-hint-too-low", "latest.json names an older version than the newest", partial(hinted, 0))
after("a-hint-too-high", "latest.json names a version that does not exist", partial(hinted, 7))
after("empty-deltas", "Another writer has published empty deltas, under numbers with gaps", empty_deltas)
after("fitting", "In another writer's chain tensors came and went", "fitting")
after("many-packs", "Another writer has put several packs in each version", "packs")
after("restated-words", "Another writer lists words that do not change", "restated-words")
after("skip-deltas", "Another writer has left shortcuts between versions", "shortcuts")
after("no-fingerprints", "Another writer names no fingerprints objects", "no-tensor-fingerprints")
write("write-after-a-hint-of-another-chain", "latest.json is of another chain, and the writer goes on with this one",
    "WRT-004 OBJ-014", go_on, chain=hinted_by_another_chain)
write("write-full-versions-after-another-writer", "Full versions are published after those of another writer",
    "MAN-008 OBJ-014 OBJ-003", partial(go_on, full=True), chain=partial(graph, "0", seed=17))
write("write-exponent-order-after-standard",
    "A delta in order exponent is published after one of another writer in both orders",
    GOES_ON, partial(go_on, share=0.4, order="exponent"), chain=partial(standard, **exponent()),
    level="writer-exponent")
# fmt: on

# -- a newest version that cannot be read ------------------------------------------------------------------------------


def full_instead(desk: Desk) -> None:
    """Where the newest version cannot be read, the writer may publish a full version instead, but no delta."""
    version = max(desk.builder.models)
    state = stepped(Random("instead"), desk.builder.models[version], 0.1)
    made = {"version": version + 1, "state": desk.state(state)}
    desk.publish(state, version + 1, expect={"any": [{"error": list(ERRORS)}, made]})
    desk.publish(state, version + 2, full=True)


def words_of_another_state() -> Builder:
    """The words of the newest version's pack are not those that its manifest describes."""
    first, second, other = walk(3, 18)
    builder = line([first])
    builder.edge(1, second, [of_chunks(delta_chunks(first, other), builder.layout(second))], base=0)
    return builder


def after_fault(slug: str, title: str, chain: Chain) -> None:
    title = f"{title}; a full version can be published all the same"
    write(f"write-after-{slug}", title, "WRT-001 WRT-003 ERR-004 OBJ-003 OBJ-014", full_instead, chain=chain)


# fmt: off
after_fault("a-pack-that-is-gone", "The newest version's pack is gone", partial(graph, "0 -> 1 gone", seed=18))
after_fault("words-of-another-state", "The newest version does not lead to the state that its manifest tells",
    words_of_another_state)
after_fault("an-unknown-feature", "The newest version needs a feature that nobody knows",
    partial(standard, last=False, features=["strided-slices"]))
after_fault("a-manifest-of-another-chain", "The newest manifest is of another chain",
    partial(standard, last=False, manifest=setting(chain=FOREIGN)))
after_fault("a-torn-manifest", "The newest manifest is cut off",
    partial(standard, last=False, text=lambda text: text[: len(text) // 2]))
# fmt: on

# -- another writer while this one lives, or is down -------------------------------------------------------------------


@script("STO-010 OBJ-003 OBJ-016")
def write_a_chain_beside_other_files(desk: Desk) -> None:
    """A folder with files of other programs becomes a chain, or is refused, and the files stay"""
    # A root without chain.json is no chain yet; the writer may begin one there, or refuse.
    desk.put({"README.md": b"mine\n", "latest.json.old": b"{}", "packs/checkpoint.safetensors": b"\0" * 8})
    (first,) = walk(1, 19)
    desk.publish(first, 0, expect={"any": [{"version": 0, "state": desk.state(first)}, {"error": ["conflict"]}]})


def second_writer(slug: str, title: str, state: Model) -> None:
    """A second writer publishes between two versions of a writer that keeps running."""

    def steps(desk: Desk) -> None:
        states = walk(4, 20)
        desk.publish(states[1], 1).join(graph("3", {3: state})).publish(states[3], 5)

    title = f"A second writer publishes {title} while the first one lives"
    title += "; its next version is a delta from the second writer's"
    chain = partial(graph, "0", seed=20)
    write(f"write-after-{slug}-of-a-second-writer", title, "WRT-001 WRT-003 MAN-008", steps, chain=chain)


second_writer("words", "other words", stepped(Random("second writer"), walk(3, 20)[2], 0.5))
second_writer("a-layout", "another layout", {"z": tensor("I64", (3,), [1, 2, 3]), "c.ids": tensor("U8", (7,), [9] * 7)})


@script("WRT-001 WRT-003 MAN-008 WRT-004", chain=partial(graph, "0", seed=21))
def write_into_a_chain_that_was_replaced(desk: Desk) -> None:
    """Another run has taken the chain's place:
    the writer reports a conflict, or goes on with the other run's version"""
    states = walk(3, 21)
    other = Builder(chain=setting(chain=FOREIGN))
    other.full(1, states[2], hook=setting(chain=FOREIGN))
    desk.publish(states[1], 1).put(other.objects)
    went_on = {"version": 2, "state": desk.state(states[0])}
    desk.publish(states[0], 2, expect={"any": [{"error": ["conflict"]}, went_on]})


@script("WRT-003 WRT-001 MAN-008")
def write_with_a_restart_after_each_version(desk: Desk) -> None:
    """The writer is started anew after each version"""
    for version, state in enumerate(walk(4, 22)):
        desk.publish(state, version).restart()


@script("WRT-003 WRT-001 MAN-008", chain=partial(graph, "0", seed=23))
def write_after_a_restart_onto_another_version(desk: Desk) -> None:
    """While the writer is down, a second one publishes:
    what the first one kept is not the newest state any more"""
    states = walk(4, 23)
    desk.publish(states[1], 1).publish(states[2], 2).restart()
    desk.join(graph("9", {9: states[0]})).publish(states[3], 10)
