"""Packs from the root, folders and public sources, proven wherever they come from."""

from __future__ import annotations

import hashlib
from pathlib import Path

import gallery
import numpy as np
import pytest
from gallery import Builder, as_state, good_chain, open_chain

import tensordelta as td
from tensordelta.read import packs, proven


@pytest.mark.parametrize("name", ["packs", "plain", "frames"])
def test_packs_too_large_for_memory_are_read_block_by_block(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packs, "KEPT", 0)
    monkeypatch.setattr(proven, "_BLOCK", 64)
    for version, model in good_chain(name).models.items():
        assert open_chain(good_chain(name)).load(version).equals(as_state(model))


def test_a_pack_that_changes_after_it_was_proven_is_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packs, "KEPT", 0)
    builder = good_chain("packs")
    chain = open_chain(builder)
    first = builder.pack_names(0)[0]
    opened: list[str] = []
    real = chain.store.open

    def swapped(name: str) -> gallery.MemoryBlob:
        opened.append(name)
        if opened.count(first) == 2:  # once to prove it
            chain.store.objects[first] = gallery.flipped(-1)(chain.store.objects[first])
        return real(name)

    monkeypatch.setattr(chain.store, "open", swapped)
    with pytest.raises(td.IntegrityError) as caught:
        chain.load(0)
    assert caught.value.rule == "TD-SEC-002"
    assert opened.count(first) >= 2


def test_a_small_pack_that_changes_after_it_was_proven_is_not_believed(tmp_path: Path) -> None:
    chain = td.open(tmp_path / "run", create=True)
    for last in (0, 7):
        chain.publish({"w": np.arange(1000, dtype=np.uint16), "v": np.array([last], np.uint16)})
    assert chain.read(1, "v")[0] == 7
    for path in (tmp_path / "run/packs").iterdir():
        path.write_bytes(gallery.flipped(-1)(path.read_bytes()))
    with pytest.raises(td.IntegrityError) as caught:
        td.open(tmp_path / "run").read(1, "v")
    assert caught.value.rule == "TD-SEC-002"


@pytest.mark.parametrize("size", [1, 63, 64, 65, 200])
def test_blocks_prove_what_they_were_made_of_and_nothing_else(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proven, "_BLOCK", 64)
    data = gallery.Random(size).bytes(size)
    blocks = proven.Blocks(size)
    for offset, length in blocks.places():
        blocks.append(memoryview(data)[offset : offset + length])
    assert blocks.sha256() == hashlib.sha256(data).hexdigest()
    for offset in range(size):
        start, length = blocks.around(offset, 1)
        assert start <= offset < start + length
        assert blocks.prove(start, memoryview(data)[start : start + length])
        altered = bytearray(data)
        altered[offset] ^= 1
        for begin, count in (
            blocks.around(offset, 1),
            blocks.around(0, offset + 1),
            blocks.around(offset, size - offset),
        ):
            assert not blocks.prove(begin, memoryview(altered)[begin : begin + count])


def test_packs_that_were_proven_are_forgotten_after_many_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proven, "_BLOCK", 1)
    monkeypatch.setattr(proven, "_BLOCKS", 10)

    def blocks(count: int) -> proven.Blocks:
        found = proven.Blocks(count)
        for _ in range(count):
            found.append(memoryview(b"x"))
        return found

    known = proven.Proven()
    for name, count in (("a", 4), ("b", 4)):
        known.remember(name, blocks(count))
    assert known.of("a") is not None  # so that "b" is the one that was used least recently
    known.remember("c", blocks(4))
    assert known.of("b") is None and known.of("a") is not None and known.of("c") is not None
    assert known.remember("d", blocks(11)).blocks is None


def test_a_pack_without_a_path_comes_from_a_folder_of_the_users(tmp_path: Path) -> None:
    rng = gallery.Random(8)
    builder = Builder()
    model = gallery.small(rng)
    source = {"path": None, "sources": ["hf://org/model@0123abcd/model.safetensors"], "name": "sub/model.safetensors"}
    shard = gallery.of_plain(model, model, stored=False, fields=source)
    builder.edge(0, model, [shard])
    with pytest.raises(td.UntrustedError) as caught:
        open_chain(builder).load(0)
    assert caught.value.rule == "TD-MAN-017"
    with pytest.raises(td.UntrustedError):
        open_chain(builder, allow_sources=["https"]).load(0)
    (tmp_path / "wrong.safetensors").write_bytes(bytes(len(shard.data)))
    with pytest.raises(td.UntrustedError):
        open_chain(builder, pack_folders=[tmp_path]).load(0)
    (tmp_path / "any name").write_bytes(shard.data)
    assert open_chain(builder, pack_folders=[tmp_path / "absent", tmp_path]).load(0).equals(as_state(model))


def test_a_source_without_a_scheme_is_passed_over() -> None:
    builder = Builder()
    model = gallery.small(gallery.Random(8))
    source = {"path": None, "sources": ["hf", "hf:org/model@0123abcd/model.safetensors", "x hf://org/model@0/m"]}
    builder.edge(0, model, [gallery.of_plain(model, model, stored=False, fields=source)])
    with pytest.raises(td.UntrustedError) as caught:
        open_chain(builder, allow_sources=["hf"]).load(0)
    assert caught.value.rule == "TD-MAN-017"


def test_an_allowed_source_that_gives_nothing_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    builder = Builder()
    model = gallery.small(gallery.Random(8))
    source = {"path": None, "sources": ["hf://org/model@0123abcd/model.safetensors", "other://x"]}
    builder.edge(0, model, [gallery.of_plain(model, model, stored=False, fields=source)])
    asked: list[str] = []
    monkeypatch.setattr(packs, "public_file", lambda each, **_: asked.append(each))
    with pytest.raises(td.MissingError) as caught:
        open_chain(builder, allow_sources=["hf"]).load(0)
    assert caught.value.rule == "TD-MAN-018"
    assert asked == ["hf://org/model@0123abcd/model.safetensors"]


def silent(source: str, **_: object) -> None:
    raise td.StoreError(source, "read", "model.safetensors", "no answer")


def test_a_source_that_does_not_answer_is_gone_around(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another route is taken; where there is none, the source's failure is told, and no version is missing."""
    builder = Builder()
    model = gallery.small(gallery.Random(8))
    source = {"path": None, "sources": ["hf://org/model@0123abcd/model.safetensors"]}
    builder.edge(0, model, [gallery.of_plain(model, model, stored=False, fields=source)])
    monkeypatch.setattr(packs, "public_file", silent)
    alone = open_chain(builder, allow_sources=["hf"])
    state = td.State.empty()
    for read in (
        alone.load,
        lambda: alone.prepare(state),
        lambda: alone.read(0, min(model)),
        lambda: alone.load_part([min(model)], 0),
        lambda: alone.verify(deep=True),
    ):
        with pytest.raises(td.StoreError, match="no answer"):
            read()
    builder.edge(0, model, [gallery.of_plain(model, model)], shortcut="")
    assert open_chain(builder, allow_sources=["hf"]).load(0).equals(as_state(model))


def test_a_host_that_is_silent_is_not_asked_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each time may take as long as the client waits, so a few are enough."""
    builder = Builder()
    model = gallery.small(gallery.Random(8))
    source = {"path": None, "sources": ["hf://org/model@0123abcd/model.safetensors"]}
    for tag in (None, *"abcdefgh"):
        builder.edge(0, model, [gallery.of_plain(model, model, stored=False, fields=source)], shortcut=tag)
    asked: list[str] = []

    def download(each: str, **_: object) -> None:
        asked.append(each)
        silent(each)

    monkeypatch.setattr(packs, "public_file", download)
    with pytest.raises(td.StoreError, match="no answer"):
        open_chain(builder, allow_sources=["hf"]).load(0)
    assert len(asked) == 3


def test_bytes_of_a_source_that_are_others_are_told_before_its_silence(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    builder = Builder()
    model = gallery.small(gallery.Random(8))
    shard = gallery.of_plain(model, model, stored=False, fields={"path": None, "sources": ["hf://o/m@0a/x"]})
    builder.edge(0, model, [shard])
    file = tmp_path / "downloaded"
    file.write_bytes(gallery.flipped(-1)(shard.data))

    def download(source: str, *, anew: bool) -> Path:
        return silent(source) if anew else file

    monkeypatch.setattr(packs, "public_file", download)
    with pytest.raises(td.IntegrityError):
        open_chain(builder, allow_sources=["hf"]).load(0)


def test_a_source_is_proven_like_any_other_place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    builder = Builder()
    model = gallery.small(gallery.Random(8))
    source = {"path": None, "sources": ["hf://org/model@0123abcd/model.safetensors"]}
    shard = gallery.of_plain(model, model, stored=False, fields=source)
    builder.edge(0, model, [shard])
    file = tmp_path / "downloaded"
    monkeypatch.setattr(packs, "public_file", lambda each, **_: file)
    file.write_bytes(gallery.flipped(-1)(shard.data))
    with pytest.raises(td.IntegrityError):
        open_chain(builder, allow_sources=["hf"]).load(0)
    file.write_bytes(shard.data)
    assert open_chain(builder, allow_sources=["hf"]).load(0).equals(as_state(model))


def test_a_damaged_pack_under_the_root_is_made_good_by_another_place(tmp_path: Path) -> None:
    builder = gallery.broken_chain("pack-altered")
    good = gallery.standard()
    path = builder.pack_names(1)[0]
    assert good.pack_names(1)[0] == path
    (tmp_path / Path(path).name).write_bytes(good.get(path))
    assert open_chain(builder, pack_folders=[tmp_path]).load(1).equals(as_state(good.models[1]))
