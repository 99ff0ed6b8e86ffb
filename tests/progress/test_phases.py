"""What the library says of its work: each phase by its true name, and how much of it is done, to the end."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tensordelta as td
from tensordelta.progress import Phase, View, current, is_seen, phase, phases
from tensordelta.stores import FolderStore

WORDS = 400_000


class Recorder(View):
    """Notes what each phase came to."""

    def __init__(self) -> None:
        super().__init__()
        self.ended: list[Phase] = []
        self.phases = _Noting(self.ended)

    def show(self, phase: Phase) -> None:
        pass

    def hide(self) -> None:
        pass

    @property
    def names(self) -> list[str]:
        return [each.doing for each in self.ended]

    def counted(self, name: str) -> Phase:
        """The last phase of this name."""
        return [each for each in self.ended if each.doing == name][-1]


class _Noting(list[Phase]):
    def __init__(self, ended: list[Phase]) -> None:
        super().__init__()
        self._ended = ended

    def remove(self, value: Phase) -> None:
        super().remove(value)
        self._ended.append(value)


class Far(FolderStore):
    """A folder that counts as far away: packs are downloaded."""

    remote = True


def weights(step: int) -> dict[str, np.ndarray[Any, Any]]:
    array = np.arange(WORDS, dtype=np.float32)
    array[: 1000 * step] += 0.5
    return {"w": array, "v": np.ones(10, np.float16)}


@pytest.fixture(params=["near", "far"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    yield FolderStore(tmp_path / "run") if request.param == "near" else Far(tmp_path / "run")


def test_every_phase_is_named_truly_and_ends_whole(store: Any, tmp_path: Path) -> None:
    nbytes = sum(array.nbytes for array in weights(0).values())
    chain = td.open(store, create=True)
    with Recorder() as seen:
        published = chain.publish(weights(0))
    assert seen.counted("writing version 0").done == nbytes
    assert seen.counted("own copy: reading version 0").total == chain.manifest(0).size
    assert not any("version 0" in name for name in seen.names if name.startswith(("reading", "fetched")))

    with Recorder() as seen:
        chain.publish(weights(1))
    assert seen.counted("writing version 1").done == nbytes and seen.names[-1] == "looking for the newest version"

    reader = td.open(store)
    with Recorder() as seen:
        reader.pull(tmp_path / "out", 0)
    assert seen.counted("reading version 0").done == chain.manifest(0).size <= published.size
    assert seen.counted("writing files").done == nbytes
    with Recorder() as seen:
        reader.pull(tmp_path / "out", scan=True)
    assert seen.counted("checking held words").done == nbytes
    assert seen.counted("reading version 1").done == chain.manifest(1).size
    assert seen.counted("patching files").done == 1000 * 4

    for deep in (False, True):
        with Recorder() as seen:
            assert chain.verify(deep=deep).ok
        assert seen.counted("checking packs").done == sum(chain.manifest(version).size for version in (0, 1))
        assert "reading version 0" not in seen.names and "downloading" not in seen.names

    with Recorder() as seen:
        copied = td.copy(store, tmp_path / "copied")
    assert 0 < seen.counted("copying").done == seen.counted("copying").total <= copied.size

    chain.publish(weights(2), full=True)
    with Recorder() as seen:
        collected = chain.collect(1, grace=0)
    assert seen.counted("dropping versions").done == 2 and seen.counted("dropping versions").unit == "objects"
    assert 0 < seen.counted("deleting objects").done <= collected.size

    with Recorder() as seen:
        td.diff(weights(0), weights(1))
    assert seen.counted("comparing").done == nbytes


def test_without_a_view_nothing_is_counted() -> None:
    assert not is_seen()
    with phase("working", 10) as work:
        work.add(5)
        assert work is current() and work.done == 0


def test_phases_lie_in_one_another() -> None:
    with Recorder() as view, phase("outer", 100) as outer:
        assert current() is outer is view.phases[-1]
        with phase("inner", 10) as inner:
            current().add(25)
        assert current() is outer and (inner.done, outer.done) == (10, 0)
        with phase("whole", 20, passes=2, whole=True) as whole, phase("part of it", 5) as part:
            assert part is whole
            part.add(20)
        assert whole.done == 10
        with phase("own copy", of=True), phase("looking"), phase("reading"):
            pass
    assert view.names == ["inner", "whole", "own copy: reading", "own copy: looking", "own copy", "outer"]


def test_other_threads_are_not_shown_but_may_add() -> None:
    with Recorder() as view, phase("mine", 100) as mine:

        def other() -> None:
            assert not is_seen()
            with phase("other"):
                current().add(1)
            for _ in range(10):
                mine.add(10)

        threads = [threading.Thread(target=other) for _ in range(1)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert view.names == ["mine"] and mine.done == 100


def test_only_long_work_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes less than a second stays unseen; of what takes longer, the phase that runs is shown."""
    shown: list[str] = []

    class Drawing(Recorder):
        def show(self, phase: Phase) -> None:
            shown.append(phase.doing)

        def hide(self) -> None:
            shown.append("hidden")

    with Drawing(), phase("short"):
        pass
    assert shown == ["hidden"] and phases.PATIENCE == 1.0
    shown.clear()
    monkeypatch.setattr(phases, "PATIENCE", 0.0)
    monkeypatch.setattr(phases, "PERIOD", 0.001)
    with Drawing(), phase("long"):
        while not shown:
            time.sleep(0.01)
    assert shown[0] == "long" and shown[-1] == "hidden"
