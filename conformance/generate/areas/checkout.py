"""A folder kept at a version by `pull` (SPEC.md sections 4.9 and 9.3)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from generate.area import Script, area
from generate.builder import Builder, digest, of_plain
from generate.graph import Chain
from generate.model import Model, Random, random_tensor, tensor
from generate.scenes import Scene, move, walk
from generate.standard import flipped

checkout = area("checkout", level="checkout")

CONFIG = b'{"layers": 1}\n'
OTHER_CONFIG = b'{"layers": 2}\n'
#: The files of versions 0, 1 and 2.
FILES: list[dict[str, bytes]] = [
    {"config.json": CONFIG, "tokenizer/vocab.txt": b"a\nb\n"},
    {"config.json": OTHER_CONFIG, "README": b""},
    {"config.json": OTHER_CONFIG},
]


def states() -> list[Model]:
    """Three states, the third in another layout."""
    first, second = walk(2)
    third = {name: each for name, each in second.items() if name != "b.bias"}
    third["a.weight"] = random_tensor(Random("checkout"), "BF16", (6, 4))
    third["0.first"] = tensor("F32", (2, 2), [1, 2, 3, 4])
    return [first, second, third]


def versions(count: int = 3, *, of: Callable[[], list[Model]] = states, file: Any = None, **how: Any) -> Builder:
    """A version for each state, with its files; `file` are other members of the first file's entry in manifest 1."""
    builder = Builder()
    for version, state in enumerate(of()[:count]):
        files = [builder.file(name, data) for name, data in FILES[version].items()]
        if file and version == 1:
            files[0] |= file
        move(builder, version, state, version - 1 if version else None, files=files, **how)
    return builder


def pull(
    scene: Scene, to: int | None, state: int | dict[str, Any] | None, beside: Mapping[str, bytes], error: str = ""
) -> Scene:
    """A pull into the folder, and what it contains afterwards.

    Args:
        state: the version that has it, or all that is expected but the files.
    """
    names = {name: f"beside/{digest(data)[:8]}" for name, data in beside.items()}
    scene.files |= {names[name]: data for name, data in beside.items()}
    expect = state if isinstance(state, dict) else scene.after(state, error=error)
    return scene.step("pull", {"chain": "chain", "dir": "folder", "to": to}, expect | {"files": names})


def pulls(*numbers: int) -> Script:
    """Pull these versions, one after the other."""
    return lambda scene: [pull(scene, version, version, FILES[version]) for version in numbers]


def newest(scene: Scene) -> None:
    pull(scene, None, 1, FILES[1])
    scene.grow(versions())
    pull(scene, None, 2, FILES[2])


def plain() -> Builder:
    """A full version of two named shards, and a delta."""
    first, second = walk(2)
    builder = Builder()
    shards = [{"b.bias": first["b.bias"], "a.weight": first["a.weight"]}, {"c.ids": first["c.ids"]}]
    packs = [
        of_plain(shard, first, metadata={"format": "pt"}, fields={"name": f"model-{number}-of-2.safetensors"})
        for number, shard in enumerate(shards, start=1)
    ]
    config = builder.file("config.json", CONFIG)
    builder.edge(0, first, packs, files=[config])
    move(builder, 1, second, 0, files=[config])
    return builder


def by_shortcut() -> Builder:
    """The only way to version 1 is a shortcut, which lists other files than the version's manifest."""
    builder = versions(2)
    other = [builder.file("other.txt", b"other"), builder.file("config.json", CONFIG)]
    move(builder, 1, builder.models[1], None, shortcut="", files=other)
    builder.remove(builder.pack_names(1)[0])
    return builder


def large() -> list[Model]:
    """Three tensors whose words are all alike, so that the packs are small: full, stepped everywhere, reshaped."""
    first = {name: tensor("BF16", (256, 256), 0x3F80 + number) for number, name in enumerate("abc")}
    second = {name: tensor("BF16", (256, 256), each.words + each.words.dtype.type(1)) for name, each in first.items()}
    third = second | {"b": tensor("BF16", (128, 512), 0x4000), "d": tensor("U8", (1 << 16,), 7)}
    del third["c"]
    return [first, second, third]


def killed(slug: str, title: str, *numbers: int) -> None:
    """Pull versions; the last pull is killed again and again."""

    def scene(scene: Scene) -> None:
        for version in numbers:
            manifest = scene.builder.manifests[version]
            layout = f"chain/layouts/{manifest['layout']}.json"
            state = {"fingerprint": manifest["fingerprint"], "layout": layout}
            pull(scene, version, {"version": version, "state": state}, FILES[version])
        scene.steps[-1]["kill"] = 8

    chain = partial(versions, of=large, coding={"positions": "all", "compression": "zstd"})
    checkout.play(f"pull-killed-{slug}", title, "APP-004 APP-005", chain, scene, flags=["slow"])


Spoil = Callable[[Builder, str], Any]


def fails(
    slug: str, title: str, rules: str, error: str, chain: Chain = versions, *, to: int = 1, at: int | None = 0
) -> None:
    """A pull that fails, into a folder at version 0, or with `at` None into an empty one."""

    def scene(scene: Scene) -> None:
        beside: Mapping[str, bytes] = {} if at is None else FILES[at]
        if at is not None:
            pull(scene, at, at, beside)
        pull(scene, to, at, beside, error=error)

    twin = "pull-over-two-deltas" if at is None else "pull-one-after-the-other"
    checkout.play(f"pull-{slug}", title, rules, chain, scene, twin=twin)


def altered(builder: Builder, name: str) -> None:
    builder.change(name, flipped(0))


def config(spoil: Spoil) -> Builder:
    """The object of the config of version 1 is spoiled."""
    builder = versions()
    spoil(builder, builder.manifests[1]["files"][0]["path"])
    return builder


def pack(version: int, spoil: Spoil) -> Builder:
    """The pack of a version is spoiled."""
    builder = versions()
    spoil(builder, builder.pack_names(version)[0])
    return builder


# fmt: off
checkout.play("pull-a-full-version", "A full version with files, one of them in a folder",
    "TRM-001", versions, pulls(0))
checkout.play("pull-over-two-deltas",
    "A version is pulled into an empty folder over a full version and two deltas of another layout",
    "TRM-001 MAN-023", versions, pulls(2))
checkout.play("pull-one-after-the-other",
    "Versions are pulled one after the other: a patch, then another layout; files come, change and go",
    "MAN-023 FIT-001", versions, pulls(0, 1, 2))
checkout.play("pull-a-version-again", "A version is pulled into a folder that is at it already",
    "RTE-008", versions, pulls(1, 1))
checkout.play("pull-an-older-version", "A folder goes back to an older version, with its files and its layout",
    "MAN-023", versions, pulls(2, 0))
checkout.play("pull-the-newest", "The newest version is pulled, and pulled again after another one has appeared",
    "OBJ-007", partial(versions, 2), newest)
checkout.play("pull-plain-packs",
    "A full version of two plain packs with names is pulled, then patched by a delta of chunks", "PCK-017 TRM-001",
    plain, lambda scene: [pull(scene, version, version, {"config.json": CONFIG}) for version in (0, 1)])
checkout.play("pull-files-of-the-version-alone",
    "The route ends with a shortcut that lists other files, and the files are those of the version's manifest",
    "MAN-023", by_shortcut, pulls(1))

# -- killed ------------------------------------------------------------------------------------------------------------
killed("in-an-empty-folder", "A pull into an empty folder is killed at eight times", 0)
killed("while-patching", "A pull that steps every word is killed at eight times", 0, 1)
killed("while-changing-the-layout", "A pull that drops and adds tensors is killed at eight times", 1, 2)
killed("over-two-versions", "A pull over two versions, which changes the layout, is killed", 0, 2)

# -- faults ------------------------------------------------------------------------------------------------------------
fails("file-gone", "The object of a file is gone, and the folder stays at the version before",
    "MAN-029", "missing", partial(config, Builder.remove))
fails("file-altered", "The object of a file is altered, and the folder stays at the version before",
    "MAN-022", "integrity", partial(config, altered))
fails("file-of-another-size", "A file's entry gives a size that its object does not have",
    "MAN-022", "integrity", partial(versions, file={"size": 1}))
fails("file-above", "The name of a file leads out of the folder: nothing is written",
    "SEC-004", "malformed", partial(versions, file={"name": "../escaped.txt"}))
fails("file-above-by-a-detour", "The name of a file leads out of the folder by a detour: nothing is written",
    "SEC-004", "malformed", partial(versions, file={"name": "a/../../escaped.txt"}))
fails("file-absolute", "The name of a file is absolute: nothing is written",
    "SEC-004", "malformed", partial(versions, file={"name": "/nowhere/escaped.txt"}))
fails("file-with-backslashes", "The name of a file has backslashes: nothing is written",
    "SEC-004", "malformed", partial(versions, file={"name": "..\\escaped.txt"}))
fails("pack-altered", "The pack of the delta is altered, and the folder stays at the version before",
    "RDR-001", "integrity", partial(pack, 1, altered))
fails("fault-in-the-second-edge",
    "The pack of the second of two deltas is altered, and the folder stays at the version before both",
    "RDR-002", "integrity", partial(pack, 2, altered), to=2)
fails("fault-in-an-empty-folder",
    "The pack of the last of three edges is gone: the folder stays without weights and files",
    "RDR-001", "missing", partial(pack, 2, Builder.remove), to=2, at=None)
fails("a-version-that-is-not-there",
    "A version is pulled that does not exist, and the folder stays at the version before",
    "OBJ-008", "missing", to=9)
