"""Damage of any kind to foreign folders: a version is refused, or it is right; what a format cannot show is left out.

TRL has no checksum, so that values and positions that still fit are believed: there only the header, the length and the
presence of files are damaged. Of the other formats every byte is.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from crossings import CASES, MIXED, MODELS, PLAIN, exporter, importer, model, run_of, states, step
from strategies import MemoryStore

import tensordelta as td
from tensordelta.errors import TensorDeltaError

_FOLDERS = {
    "trl": ["trl-5417", "trl-5937-raw", "trl-5937-gaps"],
    "slime": ["slime-xor", "slime-overwrite", "slime-adler"],
    "modelexpress": ["modelexpress"],
    "skyrl": ["skyrl-files"],
}
#: The full versions of ModelExpress's folder.
_FULLS = ("rel-0/", "rel-3/")


def _damaged(files: dict[str, bytes], rng: np.random.Generator, *, header_only: bool) -> tuple[dict[str, bytes], str]:
    """Files of which one is damaged, and how."""
    files = dict(files)
    name = sorted(files)[rng.integers(len(files))]
    data = files[name]
    kind = rng.choice(["flip", "flip", "flip", "cut", "grow", "gone", "zero", "other"])
    size = 8 + int.from_bytes(data[:8], "little") if header_only else len(data)
    at = int(rng.integers(size))
    if kind == "flip":
        files[name] = data[:at] + bytes([data[at] ^ 1 << int(rng.integers(8))]) + data[at + 1 :]
    elif kind == "cut":
        files[name] = data[: int(rng.integers(len(data)))]
    elif kind == "grow":
        files[name] = data + bytes(rng.integers(0, 256, int(rng.integers(1, 9)), dtype=np.uint8))
    elif kind == "gone":
        del files[name]
    elif kind == "zero":
        end = min(size, at + int(rng.integers(1, 64)))
        files[name] = data[:at] + bytes(end - at) + data[end:]
    else:
        # A file of one full version of ModelExpress in the place of another's has its own checksums: it is believed.
        others = [each for each in sorted(files) if not (name.startswith(_FULLS) and each.startswith(_FULLS))]
        files[name] = files[others[rng.integers(len(others))]]
    return files, f"{kind} of {name} at {at}"


def _damage(format: str, count: int) -> dict[str, int]:
    outcomes = {"refused": 0, "right": 0}
    for number in range(count):
        folders = _FOLDERS[format]
        case = CASES[folders[number % len(folders)]]
        rng = np.random.default_rng([number, len(format)])
        files, how = _damaged(dict(case.files), rng, header_only=format == "trl")
        chain = MemoryStore()
        base = None if case.base is None else MODELS / case.base[1]
        expected = dict([*([] if case.base is None else [case.base]), *case.versions])
        refused = False
        try:
            list(importer(format, MemoryStore(files), chain, base=base).all())
        except TensorDeltaError as error:
            assert error.object and error.reason and error.advice
            refused = True
        if "chain.json" in chain:
            opened = td.open(chain)
            for version in opened.versions():
                name = opened.manifest(version).annotations["foreign-version"]
                assert name in expected, f"{number}: {how}: published {name}"
                assert opened.load(version).equals(model(expected[name])), f"{number}: {how}: {name} is wrong"
        outcomes["refused" if refused else "right"] += 1
    return outcomes


@pytest.mark.parametrize("format", list(_FOLDERS))
def test_damage_is_refused_or_does_no_harm(format: str) -> None:
    assert _damage(format, 12)["refused"] >= 6


@pytest.mark.slow
@pytest.mark.parametrize("format", list(_FOLDERS))
def test_much_damage_is_refused_or_does_no_harm(format: str) -> None:
    """A hundred folders of each format, and many more than half of them refused."""
    outcomes = _damage(format, 150)
    assert outcomes["refused"] >= 100, outcomes


def test_what_trl_cannot_show(tmp_path: Path) -> None:
    """A value of a delta that is another one is believed, as the guide says: the format has nothing to prove it by."""
    case = CASES["trl-5937-raw"]
    files = dict(case.files)
    data = files["deltas/step_000002.safetensors"]
    size = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:size])
    begin = size + header["model.embed_tokens.weight.val"]["data_offsets"][0]
    files["deltas/step_000002.safetensors"] = data[:begin] + bytes([data[begin] ^ 1]) + data[begin + 1 :]
    chain = MemoryStore()
    list(importer("trl", MemoryStore(files), chain).all())
    assert not td.open(chain).load(2).equals(model(dict(case.versions)["000002"]))


@pytest.mark.parametrize("format", ["slime", "skyrl"])
def test_what_deltas_of_bytes_cannot_show(format: str) -> None:
    """Of a wrong base, tensors that no delta names stay wrong."""
    run = states(11, 2, MIXED)
    old, new = run
    quiet = old.layout.index["count"]
    words = [new.words(number) for number in range(len(new.layout))]
    words[quiet] = old.words(quiet)
    store = MemoryStore()
    list(exporter(format, run_of(MemoryStore(), [old, td.State(old.layout, words)]), store).all())
    name = next(name for name in store if name.startswith(("weight_v000000/model-", "base/model-")))
    shard = bytearray(store[name])
    header = json.loads(shard[8 : 8 + int.from_bytes(shard[:8], "little")])
    at = 8 + int.from_bytes(shard[:8], "little") + header["count"]["data_offsets"][0]
    shard[at] ^= 1
    store[name] = bytes(shard)
    chain = MemoryStore()
    list(importer(format, store, chain).all())
    opened = td.open(chain)
    assert not opened.load(1).equals(td.State(old.layout, words))
    again = opened.load(1)
    assert [
        tensor.name
        for tensor in again.layout.tensors
        if not again.has(again.layout.index[tensor.name], words[again.layout.index[tensor.name]])
    ] == ["count"]


def test_damage_is_found_by_each_checksum() -> None:
    """One bit of the base, of a tensor that changes: each algorithm notices."""
    run = states(12, 1, PLAIN)
    run.append(step(np.random.default_rng(1), run[0], 0.5))
    for checksum in ("xxh3-128", "blake3", "adler32"):
        store = MemoryStore()
        list(exporter("slime", run_of(MemoryStore(), run), store, checksum=checksum).all())
        name = "weight_v000000/model-00001-of-00001.safetensors"
        store[name] = store[name][:-1] + bytes([store[name][-1] ^ 1])
        with pytest.raises(td.IntegrityError, match=checksum):
            list(importer("slime", store, MemoryStore()).all())
