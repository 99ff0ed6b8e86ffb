"""A publish that would drop, add, retype or reshape tensors has to ask for it: mostly it is the wrong model."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from folders import save
from two_tensors import single

import tensordelta as td
from tensordelta.write.encoder import compare, cut

MODEL = {f"layers.{index}.weight": np.full((2, 3), index, np.float32) for index in range(5)}
Arrays = dict[str, np.ndarray]
Way = Callable[[td.Chain, Arrays, bool, Path], td.Published]


def by_publish(chain: td.Chain, arrays: Arrays, allowed: bool, folder: Path) -> td.Published:
    return chain.publish(arrays, layout_change=allowed)


def full(chain: td.Chain, arrays: Arrays, allowed: bool, folder: Path) -> td.Published:
    return chain.publish(arrays, full=True, layout_change=allowed)


def plain(chain: td.Chain, arrays: Arrays, allowed: bool, folder: Path) -> td.Published:
    folder = save(folder / f"m{allowed}", single(arrays))
    return chain.publish(folder, plain=True, layout_change=allowed)


def by_numbered(chain: td.Chain, arrays: Arrays, allowed: bool, folder: Path) -> td.Published:
    return chain.publish(arrays, version=7, layout_change=allowed)


def in_background(chain: td.Chain, arrays: Arrays, allowed: bool, folder: Path) -> td.Published:
    with chain.publisher(skip=(), layout_change=allowed) as publisher:
        return publisher.submit(arrays).result()


def by_draft(chain: td.Chain, arrays: Arrays, allowed: bool, folder: Path) -> td.Published:
    draft = chain.draft(arrays, full=True, layout_change=allowed)
    return draft.commit([draft.encode(arrays)])


def by_pieces(chain: td.Chain, arrays: Arrays, allowed: bool, folder: Path) -> td.Published:
    state = td.State.from_arrays(arrays)
    parts = cut(state.layout, [[(0, len(state.words(index)))] for index in range(len(state))])
    pieces = (compare(part, None, state.words(part.tensor)[part.start : part.stop]) for part in parts)
    found = (piece for piece in pieces if piece is not None)
    return chain.publish_pieces(found, None, state.layout, layout_change=allowed)[0]


WAYS: list[Way] = [by_publish, full, plain, by_numbered, in_background, by_draft, by_pieces]

CHANGES: dict[str, tuple[Arrays, dict[str, list[str]], str]] = {
    "another model": ({"w": np.zeros(3)}, {"dropped": list(MODEL), "added": ["w"]}, "5 tensors dropped"),
    "one is dropped": (dict(list(MODEL.items())[1:]), {"dropped": ["layers.0.weight"]}, "1 tensor dropped"),
    "one is added": ({**MODEL, "new": np.ones(1)}, {"added": ["new"]}, "1 tensor added (new)"),
    "one gets a dtype": (
        {**MODEL, "layers.3.weight": np.zeros((2, 3), np.float16)},
        {"retyped": ["layers.3.weight"]},
        "1 tensor retyped",
    ),
    "one gets a shape": (
        {**MODEL, "layers.3.weight": np.zeros((3, 2), np.float32)},
        {"reshaped": ["layers.3.weight"]},
        "1 tensor reshaped",
    ),
    "all get a prefix": (
        {f"module.{name}": array for name, array in MODEL.items()},
        {"dropped": list(MODEL), "added": [f"module.{name}" for name in MODEL]},
        "5 added",
    ),
}


@pytest.fixture
def begun(chain: td.Chain) -> td.Chain:
    first = chain.publish(MODEL)
    assert first.layout_change is None
    return chain


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
@pytest.mark.parametrize("kind", CHANGES)
def test_other_tensors_are_published_only_where_that_is_asked(
    begun: td.Chain, tmp_path: Path, way: Way, kind: str
) -> None:
    arrays, change, words = CHANGES[kind]
    with pytest.raises(td.ConflictError, match="other tensors than version 0") as caught:
        way(begun, arrays, False, tmp_path)
    assert words in caught.value.reason and "layout_change=True" in caught.value.advice
    assert begun.versions() == [0] and begun.publish(MODEL).version == 1, "the chain is as it was, and goes on"
    done = way(begun, arrays, True, tmp_path)
    facts = {"dropped": [], "added": [], "retyped": [], "reshaped": []} | change
    assert done.facts()["layout_change"] == facts and done.layout_change is not None
    assert begun.load() == arrays and begun.layout_change() == done.layout_change
    assert [row.layout_change for row in begun.log()] == [None, None, done.layout_change]
    assert words in str(done.layout_change)
    assert done.layout_change.short in repr(begun)


def test_the_same_tensors_need_no_leave(begun: td.Chain, tmp_path: Path) -> None:
    for number, way in enumerate(WAYS):
        (tmp_path / str(number)).mkdir()
        assert way(begun, MODEL, False, tmp_path / str(number)).layout_change is None
    assert len(begun.versions()) == 1 + len(WAYS) and begun.layout_change() is None
    assert "layout" not in repr(begun)


@pytest.mark.parametrize(
    ("names", "advice"),
    [("module.{}", "take 'module.' from the names"), ("{}_", "correct it")],
)
def test_a_prefix_is_named(begun: td.Chain, names: str, advice: str) -> None:
    with pytest.raises(td.ConflictError) as caught:
        begun.publish({names.format(name): array for name, array in MODEL.items()})
    assert advice in caught.value.advice


def test_a_prefix_that_is_missing_is_named(chain: td.Chain) -> None:
    chain.publish({f"model.{name}": array for name, array in MODEL.items()})
    with pytest.raises(td.ConflictError) as caught:
        chain.publish(MODEL)
    assert "put 'model.' before the names" in caught.value.advice


def test_publishing_a_version_again_is_a_success_without_leave(begun: td.Chain) -> None:
    begun.publish({"w": np.zeros(3)}, version=1, layout_change=True)
    again = td.open(begun.address).publish({"w": np.zeros(3)}, version=1)
    assert (again.version, again.size) == (1, 0) and again.layout_change is not None


def test_a_full_version_after_one_that_cannot_be_read(begun: td.Chain) -> None:
    """It is how a damaged chain goes on, and there is nothing to compare its tensors with."""
    Path(begun.address, "manifests", "000000000000.json").write_bytes(b"{}")
    assert td.open(begun.address).publish({"w": np.zeros(3)}, full=True).layout_change is None


def command(*arguments: object, code: int = 0) -> Any:
    done = subprocess.run(
        [sys.executable, "-m", "tensordelta", *map(str, arguments)], capture_output=True, text=True, check=False
    )
    assert done.returncode == code, done.stderr
    return done.stdout


def test_the_commands_say_what_changed(tmp_path: Path) -> None:
    chain = tmp_path / "chain"
    for name, arrays in (("one", MODEL), ("two", {"w": np.zeros(3)})):
        td.State.from_arrays(arrays).save(tmp_path / f"{name}.safetensors")
    command("publish", chain, tmp_path / "one.safetensors")
    refused = json.loads(command("publish", chain, tmp_path / "two.safetensors", "--json", code=1))
    assert refused["error"] == "conflict" and "--allow-layout-change" in refused["message"]
    assert td.open(chain).versions() == [0]
    shown = command("publish", chain, tmp_path / "two.safetensors", "--allow-layout-change")
    assert "5 tensors dropped (layers.0.weight, layers.1.weight, layers.2.weight …), 1 added (w)" in shown
    change = {"dropped": list(MODEL), "added": ["w"], "retyped": [], "reshaped": []}
    assert [row["layout_change"] for row in json.loads(command("log", chain, "--json"))] == [None, change]
    assert "5 dropped, 1 added" in command("log", chain)
    assert json.loads(command("show", chain, "--json"))["layout_change"] == change
    assert json.loads(command("show", chain, 0, "--json"))["layout_change"] is None
    assert "5 tensors dropped" in command("show", chain)


def test_a_version_is_shown_although_the_one_before_is_damaged(begun: td.Chain) -> None:
    begun.publish({"w": np.zeros(3)}, layout_change=True)
    Path(begun.address, "manifests", "000000000000.json").write_bytes(b"{}")
    assert json.loads(command("show", begun.address, 1, "--json"))["layout_change"] is None
    with pytest.raises(td.MalformedError):
        td.open(begun.address).layout_change(1)


def test_a_background_publisher_goes_on_after_the_wrong_model(begun: td.Chain) -> None:
    with begun.publisher(skip=()) as publisher:
        wrong = publisher.submit({"w": np.zeros(3)})
        assert wrong.wait(60)
        with pytest.raises(td.ConflictError):
            publisher.submit(MODEL)
        assert publisher.submit(MODEL).result().version == 1
