"""Damage with digests that match: a pack, a layout or a table is changed, and what names it is changed as well.

SHA-256 says nothing against such an object, so only the deeper checks are left: bounds, tables, codecs, and the sums of
words. Fingerprints are never computed anew: a version whose words and sums agree is another version, not a damaged one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from gallery import Tensor

from .documents import EDITS, edited
from .harms import HARMS
from .objects import DAMAGES, Damage, Objects, choose
from .worlds import World

_MEMBERS = ("manifests/", "shortcuts/")


def _reseal(objects: Objects, name: str, data: bytes) -> None:
    """Put an object under the name of its new digest, and change all manifests that name it."""
    old, new = hashlib.sha256(objects[name]).hexdigest(), hashlib.sha256(data).hexdigest()
    size = len(objects[name])
    for member in [*objects]:
        if member.startswith(_MEMBERS) and old.encode() in objects[member]:
            objects[member] = _renamed(objects[member], old, new, size, len(data))
    objects[name.replace(old, new)] = data


def _renamed(manifest: bytes, old: str, new: str, size: int, new_size: int) -> bytes:
    try:
        document = json.loads(manifest)
    except ValueError:  # some good chains have a manifest that nobody needs
        return manifest
    for entry in [*document.get("packs", ()), *document.get("files", ())]:
        if entry["sha256"] == old and entry["size"] == size:
            entry["size"] = new_size
    return json.dumps(document).encode().replace(old.encode(), new.encode())


def parts_of(pack: bytes) -> tuple[bytes, bytes]:
    """The header and the rest of a safetensors file."""
    stop = 8 + int.from_bytes(pack[:8], "little")
    return pack[8:stop], pack[stop:]


def with_header(header: bytes, rest: bytes) -> bytes:
    """A safetensors file."""
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + rest


def _pack(objects: Objects, world: World, rng: Random, *, table: bool = False) -> str:
    """A pack, in most cases a needed one; with `table` one that has a chunk table."""
    packs = [name for name in sorted(world.needed) if name.startswith("packs/")]
    if not packs or rng.random() < 0.3:
        packs = [name for name in sorted(objects) if name.startswith("packs/")]
    if table:
        packs = [name for name in packs if b'"tensordelta"' in parts_of(objects[name])[0]]
    return rng.choice(packs) if packs else ""


def _damage(name: str, *, table: bool = False) -> Callable[[Callable[[bytes, Random], tuple[bytes, str]]], Damage]:
    """Register a damage of a pack's bytes."""

    def register(change: Callable[[bytes, Random], tuple[bytes, str]]) -> Damage:
        def damage(objects: Objects, world: World, _: Sequence[World], rng: Random) -> str:
            pack = _pack(objects, world, rng, table=table)
            if not pack:
                return ""
            data, what = change(objects[pack], rng)
            _reseal(objects, pack, data)
            return f"{pack[:14]}…: {what}"

        DAMAGES[f"resealed: {name}"] = damage
        return damage

    return register


@_damage("a pack's bytes")
def _bytes(pack: bytes, rng: Random) -> tuple[bytes, str]:
    return HARMS[rng.choice([*HARMS])](pack, rng)


@_damage("a pack's streams")
def _streams(pack: bytes, rng: Random) -> tuple[bytes, str]:
    header, rest = parts_of(pack)
    rest, what = HARMS[rng.choice(["bit flipped", "range zeroed", "range torn", "bytes changed"])](rest, rng)
    return with_header(header, rest), what


@_damage("a pack's header")
def _header(pack: bytes, rng: Random) -> tuple[bytes, str]:
    header, rest = parts_of(pack)
    header, what = edited(header, EDITS[rng.choice([*EDITS])], rng)
    return with_header(header, rest), what


@_damage("a chunk table", table=True)
def _table(pack: bytes, rng: Random) -> tuple[bytes, str]:
    header, rest = parts_of(pack)
    document = json.loads(header)
    table, what = edited(document["__metadata__"]["tensordelta"].encode(), EDITS[rng.choice([*EDITS])], rng)
    document["__metadata__"]["tensordelta"] = table.decode("utf-8", "replace")
    return with_header(json.dumps(document, ensure_ascii=False).encode(), rest), what


@_damage("streams exchanged", table=True)
def _streams_exchanged(pack: bytes, rng: Random) -> tuple[bytes, str]:
    """Two streams of equal or other length change places, and the header says so."""
    header, rest = parts_of(pack)
    document = json.loads(header)
    names = [name for name in document if name != "__metadata__"]
    first, second = rng.choice(names), rng.choice(names)
    document[first], document[second] = document[second], document[first]
    return with_header(json.dumps(document).encode(), rest), f"{first} and {second}"


def _layout(objects: Objects, world: World, _: Sequence[World], rng: Random) -> str:
    """A tensor of a layout has another name, width or place, fewer words, or is not there.

    Another shape of the same words, another dtype of the same width, and words or tensors more that are zero would make
    another version that agrees with itself.
    """
    name = choose(objects, world, rng, kinds=["layouts"])
    if not objects[name].startswith(b"{"):  # a good chain has some that nobody needs
        return ""
    document = json.loads(objects[name])
    tensors: list[dict[str, Any]] = document["tensors"]
    told = [each for each in tensors if all(_tells(model.get(each["name"])) for model in world.models.values())]
    if not told:
        return ""
    each = rng.choice(told)
    what = rng.choice(["name", "words", "width", "dropped", "repeated", "order"])
    if what == "name":
        each["name"] += rng.choice(["x", "é", "\0"])
    elif what == "words":
        each["shape"] = [1]
    elif what == "width":
        each["dtype"] = "F64" if each["dtype"] not in ("F64", "C64", "I64", "U64") else "U8"
    elif what == "dropped":
        tensors.remove(each)
    elif what == "repeated":
        tensors.append(each)
    elif len(tensors) > 1:
        tensors.reverse()
    else:
        return ""
    _reseal_layout(objects, name, json.dumps(document).encode(), rng)
    return f"{what} of {each['name']}"


def _tells(tensor: Tensor | None) -> bool:
    """True if sums tell of a tensor's words, because some after the first are not zero; or if it is not there."""
    return tensor is None or bool(tensor.words[8:].any())


def _reseal_layout(objects: Objects, name: str, data: bytes, rng: Random) -> None:
    """As `_reseal`, and the tables of packs name the new layout, or in some cases do not."""
    old, new = hashlib.sha256(objects[name]).hexdigest().encode(), hashlib.sha256(data).hexdigest().encode()
    tables = rng.random() < 0.8
    for pack in [each for each in objects if each.startswith("packs/")]:
        if tables and old in objects[pack]:
            _reseal(objects, pack, objects[pack].replace(old, new))
    _reseal(objects, name, data)


DAMAGES["resealed: a layout"] = _layout


def _sums(objects: Objects, world: World, _: Sequence[World], rng: Random) -> str:
    """A fingerprints object has other sums."""
    name = choose(objects, world, rng, kinds=["fingerprints"])
    if not name or not objects[name]:
        return ""
    data, what = HARMS[rng.choice([*HARMS])](objects[name], rng)
    _reseal(objects, name, data)
    return f"{name[:20]}…: {what}"


DAMAGES["resealed: fingerprints"] = _sums


def _manifest_of_packs(objects: Objects, world: World, _: Sequence[World], rng: Random) -> str:
    """A manifest names the packs, base or layout of another one: all of them are whole, and not those of its version.

    With another version's fingerprint it would say that it is that version, and be believed by one who holds it.
    """
    members = [each for each in sorted(objects) if each.startswith(_MEMBERS)]
    if len(members) < 2:
        return ""
    first, second = rng.sample(members, 2)
    try:
        mine, theirs = json.loads(objects[first]), json.loads(objects[second])
    except ValueError:
        return ""
    what = rng.choice(["packs", "base", "layout", "one pack more", "one pack less", "packs twice"])
    if what in ("packs", "base", "layout"):
        nothing = mine["fingerprint"] == "0" * 16  # tensors of words that are all zero are in no sum
        if mine.get(what) == theirs.get(what) or (what == "layout" and nothing):
            return ""
        mine[what] = theirs[what]
    elif what == "one pack more":
        mine["packs"] += theirs["packs"][:1]
    elif what == "one pack less":
        mine["packs"] = mine["packs"][1:]
    else:
        mine["packs"] *= 2
    objects[first] = json.dumps(mine).encode()
    return f"{first}: {what} of {second}"


DAMAGES["resealed: packs of another version"] = _manifest_of_packs
