"""A folder kept at a version by `pull` (SPEC.md sections 4.9 and 9.3)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from generate.builder import Builder, digest, of_plain
from generate.model import Model, Random, random_tensor, tensor
from generate.scenes import Scene, State, move, play, walk
from generate.standard import flipped

AREA = "checkout"
Beside = Mapping[str, bytes]
"""Files by name."""

CONFIG = b'{"layers": 1}\n'
OTHER_CONFIG = b'{"layers": 2}\n'
VOCABULARY = b"a\nb\n"
#: The files of versions 0, 1 and 2.
FILES: list[dict[str, bytes]] = [
    {"config.json": CONFIG, "tokenizer/vocab.txt": VOCABULARY},
    {"config.json": OTHER_CONFIG, "README": b""},
    {"config.json": OTHER_CONFIG},
]


def _states() -> list[Model]:
    """Three states, the third in another layout."""
    first, second = walk(2)
    third = {name: each for name, each in second.items() if name != "b.bias"}
    third["a.weight"] = random_tensor(Random("checkout"), "BF16", (6, 4))
    third["0.first"] = tensor("F32", (2, 2), [1, 2, 3, 4])
    return [first, second, third]


def _chain(
    states: Sequence[Model] | None = None,
    files: Sequence[Beside] = FILES,
    *,
    hook: Callable[[dict[str, Any]], Any] | None = None,
) -> Builder:
    """A version for each state, with its files; `hook` changes manifest 1."""
    builder = Builder()
    for version, (state, beside) in enumerate(zip(states or _states(), files, strict=True)):
        more: dict[str, Any] = {"files": [builder.file(name, data) for name, data in beside.items()]}
        if hook and version == 1:
            more["hook"] = hook
        move(builder, version, state, version - 1 if version else None, **more)
    return builder


def _pull(
    scene: Scene,
    to: int | None,
    state: State,
    beside: Beside,
    *,
    error: str = "",
    version: int | None = None,
    **more: Any,
) -> None:
    """A pull into the folder, and what stands there after it."""
    names = {}
    for name, data in beside.items():
        path = f"beside/{digest(data)[:8]}"
        scene.files[path] = data
        names[name] = path
    expect = scene.after(state, version, error) | {"files": names}
    scene.step("pull", {"chain": "chain", "dir": "folder", "to": to}, expect, **more)


def _case(
    slug: str,
    title: str,
    requirements: Sequence[str],
    chain: Callable[[], Builder],
    scene: Callable[[Scene], None],
    *,
    valid: bool = True,
    twin: str | None = None,
    flags: Sequence[str] = (),
) -> None:
    play(
        slug,
        area=AREA,
        level="checkout",
        title=title,
        requirements=requirements,
        chain=chain,
        scene=scene,
        valid=valid,
        twin=twin,
        flags=flags,
    )


def _versions(*versions: int) -> Callable[[Scene], None]:
    """Pull these versions, one after the other."""

    def scene(scene: Scene) -> None:
        for version in versions:
            _pull(scene, version, version, FILES[version])

    return scene


_case("pull-a-full-version", "A full version with files, one of them in a folder", ["TD-TRM-001"], _chain, _versions(0))
_case(
    "pull-over-two-deltas",
    "A version is pulled into an empty folder over a full version and two deltas of another layout",
    ["TD-TRM-001", "TD-MAN-023"],
    _chain,
    _versions(2),
)
_case(
    "pull-one-after-the-other",
    "Versions are pulled one after the other: a patch, then another layout; files come, change and go",
    ["TD-MAN-023", "TD-FIT-001"],
    _chain,
    _versions(0, 1, 2),
)
_case(
    "pull-a-version-again",
    "A version is pulled into a folder that is at it already",
    ["TD-RTE-008"],
    _chain,
    _versions(1, 1),
)
_case(
    "pull-an-older-version",
    "A folder goes back to an older version, with its files and its layout",
    ["TD-MAN-023"],
    _chain,
    _versions(2, 0),
)


def _newest(scene: Scene) -> None:
    _pull(scene, None, 1, FILES[1])
    scene.grow(_chain())
    _pull(scene, None, 2, FILES[2])


_case(
    "pull-the-newest",
    "The newest version is pulled, and pulled again after another one has appeared",
    ["TD-OBJ-007"],
    lambda: _chain(_states()[:2], FILES[:2]),
    _newest,
)


def _plain() -> Builder:
    """A full version of two named shards, and a delta."""
    first, second = walk(2)
    builder = Builder()
    shards = [{"b.bias": first["b.bias"], "a.weight": first["a.weight"]}, {"c.ids": first["c.ids"]}]
    packs = [
        of_plain(shard, first, metadata={"format": "pt"}, fields={"name": f"model-{number}-of-2.safetensors"})
        for number, shard in enumerate(shards, start=1)
    ]
    builder.edge(0, first, packs, files=[builder.file("config.json", CONFIG)])
    move(builder, 1, second, 0, files=[builder.file("config.json", CONFIG)])
    return builder


def _both_plain(scene: Scene) -> None:
    _pull(scene, 0, 0, {"config.json": CONFIG})
    _pull(scene, 1, 1, {"config.json": CONFIG})


_case(
    "pull-plain-packs",
    "A full version of two plain packs with names is pulled, then patched by a delta of chunks",
    ["TD-PCK-017", "TD-TRM-001"],
    _plain,
    _both_plain,
)


def _by_shortcut() -> Builder:
    """The only way to version 1 is a shortcut, which lists other files than the version's manifest."""
    states = walk(2)
    builder = _chain(states, FILES[:2])
    other = [builder.file("other.txt", b"other"), builder.file("config.json", CONFIG)]
    move(builder, 1, states[1], None, shortcut="", files=other)
    for name in builder.pack_names(1):
        builder.remove(name)
    return builder


_case(
    "pull-files-of-the-version-alone",
    "The route ends with a shortcut that lists other files, and the files are those of the version's manifest",
    ["TD-MAN-023"],
    _by_shortcut,
    _versions(1),
)

# -- killed ------------------------------------------------------------------------------------------------------------

WORDS = 1 << 16


def _large() -> Builder:
    """Three tensors whose words are all alike, so that the packs are small: full, stepped everywhere, reshaped."""
    first = {name: tensor("BF16", (256, 256), 0x3F80 + number) for number, name in enumerate("abc")}
    second = {name: tensor("BF16", (256, 256), each.words + each.words.dtype.type(1)) for name, each in first.items()}
    third = second | {"b": tensor("BF16", (128, 512), 0x4000), "d": tensor("U8", (WORDS,), 7)}
    del third["c"]
    builder = Builder()
    coding = {"positions": "all", "compression": "zstd"}
    for version, state in enumerate((first, second, third)):
        files = [builder.file(name, data) for name, data in FILES[version].items()]
        move(builder, version, state, version - 1 if version else None, coding=coding, files=files)
    return builder


def _killed(slug: str, title: str, *versions: int) -> None:
    """Pull versions; the last one is killed again and again."""

    def scene(scene: Scene) -> None:
        for version in versions:
            manifest = scene.builder.manifests[version]
            _pull(scene, version, None, FILES[version], version=version)
            step = scene.steps[-1]
            layout = f"chain/layouts/{manifest['layout']}.json"
            step["expect"]["state"] = {"fingerprint": manifest["fingerprint"], "layout": layout}
        scene.steps[-1]["kill"] = 8

    _case(slug, title, ["TD-APP-004", "TD-APP-005"], _large, scene, flags=["slow"])


_killed("pull-killed-in-an-empty-folder", "A pull into an empty folder is killed at eight times", 0)
_killed("pull-killed-while-patching", "A pull that steps every word is killed at eight times", 0, 1)
_killed("pull-killed-while-changing-the-layout", "A pull that drops and adds tensors is killed at eight times", 1, 2)
_killed("pull-killed-over-two-versions", "A pull over two versions, which changes the layout, is killed", 0, 2)

# -- faults ------------------------------------------------------------------------------------------------------------


def _fails(to: int, error: str, at: int | None = 0) -> Callable[[Scene], None]:
    """Pull version `at`, and then one in vain."""

    def scene(scene: Scene) -> None:
        if at is not None:
            _pull(scene, at, at, FILES[at])
        _pull(scene, to, at, {} if at is None else FILES[at], error=error)

    return scene


def _bad(
    slug: str,
    title: str,
    requirement: str,
    error: str,
    spoil: Callable[[Builder], Any] | None = None,
    *,
    to: int = 1,
    at: int | None = 0,
    chain: Callable[[], Builder] = _chain,
) -> None:
    def spoiled() -> Builder:
        builder = chain()
        if spoil:
            spoil(builder)
        return builder

    twin = "pull-one-after-the-other" if at == 0 else "pull-over-two-deltas"
    _case(slug, title, [requirement], spoiled, _fails(to, error, at), valid=False, twin=twin)


def _file(version: int, name: str, how: Callable[[Builder, str], Any]) -> Callable[[Builder], None]:
    """Something happens to the object of a file."""

    def spoil(builder: Builder) -> None:
        files = builder.manifests[version]["files"]
        how(builder, next(entry["path"] for entry in files if entry["name"] == name))

    return spoil


def _alter(builder: Builder, name: str) -> None:
    builder.change(name, flipped(0))


def _renamed(name: str) -> Callable[[], Builder]:
    """Manifest 1 has its first file under another name."""
    return lambda: _chain(hook=lambda document: document["files"][0].update(name=name))


_bad(
    "pull-file-gone",
    "The object of a file is gone, and the folder stays at the version before",
    "TD-MAN-029",
    "missing",
    _file(1, "config.json", Builder.remove),
)
_bad(
    "pull-file-altered",
    "The object of a file is altered, and the folder stays at the version before",
    "TD-MAN-022",
    "integrity",
    _file(1, "config.json", _alter),
)
_bad(
    "pull-file-of-another-size",
    "A file's entry gives a size that its object does not have",
    "TD-MAN-022",
    "integrity",
    chain=lambda: _chain(hook=lambda document: document["files"][0].update(size=1)),
)
for slug, name, title in (
    ("above", "../escaped.txt", "leads out of the folder"),
    ("above-by-a-detour", "a/../../escaped.txt", "leads out of the folder by a detour"),
    ("absolute", "/nowhere/escaped.txt", "is absolute"),
    ("with-backslashes", "..\\escaped.txt", "has backslashes"),
):
    _bad(
        f"pull-file-{slug}",
        f"The name of a file {title}: nothing is written",
        "TD-SEC-004",
        "malformed",
        chain=_renamed(name),
    )
_bad(
    "pull-pack-altered",
    "The pack of the delta is altered, and the folder stays at the version before",
    "TD-RDR-001",
    "integrity",
    lambda builder: _alter(builder, builder.pack_names(1)[0]),
)
_bad(
    "pull-fault-in-the-second-edge",
    "The pack of the second of two deltas is altered, and the folder stays at the version before both",
    "TD-RDR-002",
    "integrity",
    lambda builder: _alter(builder, builder.pack_names(2)[0]),
    to=2,
)
_bad(
    "pull-fault-in-an-empty-folder",
    "The pack of the last of three edges is gone: the folder stays without weights and files",
    "TD-RDR-001",
    "missing",
    lambda builder: builder.remove(builder.pack_names(2)[0]),
    to=2,
    at=None,
)
_bad(
    "pull-a-version-that-is-not-there",
    "A version is pulled that does not exist, and the folder stays at the version before",
    "TD-OBJ-008",
    "missing",
    to=9,
)
