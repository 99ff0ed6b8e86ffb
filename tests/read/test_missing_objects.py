"""Objects that do not exist: each is reported under its own name and the rule of SPEC.md that its absence breaks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gallery
import numpy as np
import pytest

import tensordelta as td
from tensordelta.format.keys import SecretKey
from tensordelta.format.names import ShortcutName, fingerprints_name, layout_name, manifest_name, shortcut_name
from tensordelta.format.signature import Message
from tensordelta.stores import FolderStore

KEY = "1" * 64


class Far(gallery.MemoryStore):
    """A store of a user's own, which is remote and raises a `MissingError` under a rule of packs."""

    remote = True

    def names(self, prefix: str, after: str | None = None) -> Iterator[str]:
        return iter(list(super().names(prefix, after)))


@pytest.fixture(params=["folder", "own", "far"])
def published(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> td.Chain:
    """Two full versions of a checkpoint folder with a file, and a shortcut to the second."""
    monkeypatch.setenv("TENSORDELTA_CACHE_BYTES", "0")  # or packs would still be in this machine's cache
    kind = {"folder": FolderStore(tmp_path / "chain"), "own": gallery.MemoryStore({}), "far": Far({})}
    chain = td.open(kind[request.param], create=True, threads=1)
    for version in range(2):
        folder = tmp_path / f"{version}"
        folder.mkdir()
        words = np.arange(64, dtype=np.float32) + np.float32(version)
        td.State.from_arrays({"w": words}).save(folder / "model.safetensors")
        (folder / "config.json").write_text(f'{{"version": {version}}}')
        chain.publish(folder)
    chain.shortcut(None, 1)
    return chain


def of_version(kind: str, chain: td.Chain) -> str:
    """The name of an object of version 1."""
    manifest = chain.manifest(1)
    assert isinstance(manifest.tensor_fingerprints, str)
    return {
        "chain": "chain.json",
        "manifest": manifest_name(1),
        "layout": layout_name(manifest.layout),
        "fingerprints": fingerprints_name(manifest.tensor_fingerprints),
        "pack": manifest.packs[0].path or "",
        "file": manifest.files[0].path,
    }[kind]


def held(chain: td.Chain) -> td.State:
    state = td.State.from_arrays({"w": np.arange(64, dtype=np.float32)}).copy()
    state.version, state.chain = 0, chain.id
    return state


#: What is removed, what is asked for, and the rule under which it is missing.
CASES: list[tuple[str, str, Callable[[td.Chain, Path], Any], str]] = [
    ("chain", "open", lambda chain, _: td.open(chain._reader.store), "TD-OBJ-009"),
    ("chain", "sign", lambda chain, _: chain.sign(KEY), "TD-OBJ-009"),
    ("chain", "wait", lambda chain, _: chain.wait(9, timeout=0), "TD-OBJ-009"),
    ("manifest", "manifest", lambda chain, _: chain.manifest(1), "TD-OBJ-008"),
    ("manifest", "load", lambda chain, _: chain.load(1), "TD-OBJ-008"),
    ("manifest", "sign", lambda chain, _: chain.sign(KEY, versions=[1]), "TD-OBJ-008"),
    ("manifest", "pin", lambda chain, _: chain.pin(1, "eval"), "TD-OBJ-008"),
    ("layout", "layout", lambda chain, _: chain.layout(1), "TD-LAY-009"),
    ("layout", "load", lambda chain, _: chain.load(0), "TD-LAY-009"),
    ("fingerprints", "load_part", lambda chain, _: chain.load_part(["w"], 1, held=held(chain)), "TD-FPR-010"),
    ("fingerprints", "read", lambda chain, _: chain.read(1, "w"), "TD-FPR-010"),
    ("pack", "read", lambda chain, _: chain.read(1, "w"), "TD-MAN-014"),
    ("pack", "load", lambda chain, _: chain.load(1), "TD-MAN-014"),
    ("file", "pull", lambda chain, folder: chain.pull(folder / "pulled", 1), "TD-MAN-029"),
]


@pytest.mark.parametrize(("kind", "asked", "ask", "rule"), CASES, ids=[f"{kind}-{asked}" for kind, asked, *_ in CASES])
def test_a_missing_object(
    published: td.Chain, tmp_path: Path, kind: str, asked: str, ask: Callable[[td.Chain, Path], Any], rule: str
) -> None:
    store = published._reader.store
    victim = of_version(kind, published)
    store.delete(shortcut_name(1, None))
    chain = published if kind == "chain" else td.open(store, threads=1)
    store.delete(victim)
    with pytest.raises(td.MissingError) as caught:
        ask(chain, tmp_path)
    assert caught.value.object.startswith(victim) and caught.value.rule == rule
    assert type(caught.value) is td.MissingError, "a store's own error must not surface"


def test_a_missing_signature(published: td.Chain) -> None:
    key = SecretKey.generate()
    published.sign(key)
    store = published._reader.store
    store.delete(Message(manifest_name(1), store.read(manifest_name(1))).signature_name(key.public))
    with pytest.raises(td.UntrustedError) as caught:
        td.open(store, threads=1, trusted_keys=[key.public]).load(1)
    assert (caught.value.object, caught.value.rule) == (manifest_name(1), "TD-SIG-012")


def test_a_missing_shortcut(published: td.Chain) -> None:
    with pytest.raises(td.MissingError) as caught:
        published._reader.documents.shortcut(ShortcutName(1, 0, None))
    assert (caught.value.object, caught.value.rule) == (shortcut_name(1, 0), "TD-RTE-006")


def test_a_missing_pin(published: td.Chain) -> None:
    with pytest.raises(td.MissingError) as caught:
        published.unpin("eval")
    assert (caught.value.object, caught.value.rule) == ("pins/eval.json", "TD-RET-007")


@pytest.mark.parametrize(
    ("kind", "rule"), [("layout", "TD-LAY-009"), ("fingerprints", "TD-FPR-010"), ("file", "TD-MAN-029")]
)
def test_a_verifier_reports_the_same_rule(published: td.Chain, kind: str, rule: str) -> None:
    store = published._reader.store
    victim = of_version(kind, published)
    store.delete(victim)
    faults = td.open(store, threads=1).verify().faults
    assert {fault.rule for fault in faults if fault.object.startswith(victim)} == {rule}


def test_an_altered_file(published: td.Chain, tmp_path: Path) -> None:
    store = published._reader.store
    store.put(of_version("file", published), [b"{}"])
    with pytest.raises(td.IntegrityError) as caught:
        td.open(store, threads=1).pull(tmp_path / "pulled", 1)
    assert caught.value.rule == "TD-MAN-022"


def test_a_stores_own_error_names_no_rule(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    for read in (store.read, store.open):
        with pytest.raises(td.MissingError) as caught:
            read("packs/x")
        assert caught.value.rule == "" and "packs/x" in str(caught.value) and "[]" not in str(caught.value)
