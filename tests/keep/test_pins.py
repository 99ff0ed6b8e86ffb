"""Pins: what they keep, how long, and what happens to pins that cannot be read or come late."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable

import pytest
from clocked_store import ClockedStore
from collecting import DAY, Run, open_chain

import tensordelta as td
from tensordelta.format.names import manifest_name, retired_name


def test_a_pinned_version_stays() -> None:
    run = Run(8)
    run.chain.shortcut(None, 3)
    run.chain.shortcut(None, 7)
    assert json.loads(run.store.objects.get("pins/eval.json", (b"{}",))[0]) == {}
    run.chain.pin(3, "eval")
    assert json.loads(run.store.objects["pins/eval.json"][0]) == {
        "tensordelta": "1.0-rc.1",
        "chain": run.chain.id,
        "version": 3,
    }
    done = run.collect(1)
    assert done.kept == [3, 7] == run.chain.versions()
    assert [(pin.name, pin.version) for pin in done.pins] == [("eval", 3)] and "eval" in repr(done)
    run.chain.unpin("eval")
    assert run.collect(1).dropped == [3] and run.chain.pins() == []


def test_a_pin_expires_by_the_clock_of_the_store() -> None:
    run = Run(4)
    run.chain.shortcut(None, 1)
    run.chain.shortcut(None, 3)
    run.chain.pin(1, "a", expires=100)
    assert json.loads(run.store.objects["pins/a.json"][0])["seconds"] == 100
    run.store.now += 99
    assert 1 in run.collect(1).kept
    run.chain.pin(1, "a", expires=100)
    run.store.now += 99
    assert 1 in run.collect(1).kept, "it was renewed"
    run.store.now += 1
    done = run.collect(1)
    assert done.dropped == [1] and done.pins == [] and "pins/a.json" in done.objects


def test_a_pin_moves_and_tells() -> None:
    run = Run(3)
    run.chain.pin(0, "b", expires=60)
    run.chain.pin(2, "b")
    run.chain.pin(1, "a", expires=60)
    first, second = run.chain.pins()
    assert (first.name, first.version, first.seconds, first.written) == ("a", 1, 60, run.store.now)
    assert (second.name, second.version, second.seconds, second.until) == ("b", 2, None, "for ever")
    assert first.until == "1970-01-01 00:18:10" and first.facts()["expires"] == run.store.now + 60


def test_pins_that_cannot_be() -> None:
    run = Run(3)
    with pytest.raises(td.MissingError):
        run.chain.pin(3, "a")
    for name in ("", "a/b", ".a", "a" * 65, "ä"):
        with pytest.raises(ValueError, match="no name of a pin"):
            run.chain.pin(0, name)
    with pytest.raises(ValueError, match="seconds"):
        run.chain.pin(0, "a", expires=-1)
    with pytest.raises(td.MissingError):
        run.chain.unpin("a")
    assert run.chain.pins() == []


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b'{"tensordelta": "1.0-rc.1"}',
        b'{"tensordelta": "1.0-rc.1", "chain": "CHAIN", "version": -1}',
        b'{"tensordelta": "1.0-rc.1", "chain": "CHAIN", "version": 0, "seconds": null}',
        b'{"tensordelta": "1.0-rc.1", "chain": "CHAIN", "version": 0, "seconds": 1.0}',
        b'{"tensordelta": "2.0", "chain": "CHAIN", "version": 0}',
        b'{"tensordelta": "1.0-rc.1", "chain": "CHAIN", "version": 0, "x": "' + b"y" * 65536 + b'"}',
    ],
)
def test_a_pin_that_cannot_be_read_holds_all_for_one_grace_period(data: bytes) -> None:
    run = Run(3)
    run.chain.shortcut(None, 2)
    run.store.put("pins/a.json", [data.replace(b"CHAIN", run.chain.id.encode())])
    run.store.now += DAY - 1
    done = run.collect(1, grace=DAY)
    assert done.broken_pins == ["pins/a.json"] and done.dropped == [] == run.store.deleted()
    assert "pins/a.json" in repr(done)
    run.check(held=(0, 1))
    assert run.chain.verify(deep=True).ok and len(run.chain.log()) == 3 and run.chain.pins() == []
    run.store.now += 1
    done = run.collect(1, grace=DAY)
    assert done.broken_pins == ["pins/a.json"] and done.dropped == [0, 1], "it is told, and passed over"
    assert "pins/a.json" in run.store.objects


def test_pins_of_another_chain_hold_nothing() -> None:
    run = Run(3)
    run.chain.shortcut(None, 2)
    run.chain.pin(0, "a")
    data, _ = run.store.objects["pins/a.json"]
    other = data.replace(run.chain.id.encode(), b"00000000-0000-0000-0000-000000000000")
    run.store.objects["pins/a.json"] = other, 0.0
    assert run.collect(1).dropped == [0, 1] and "pins/a.json" in run.store.objects


def test_a_pin_that_comes_while_a_collector_chooses() -> None:
    run = Run(5)
    run.chain.shortcut(None, 2)
    run.chain.shortcut(None, 4)
    pinned = []

    def pin(name: str) -> None:
        if name == manifest_name(4) and not pinned:
            pinned.append(name)
            run.chain.pin(2, "late")

    run.store.before_open = pin
    done = run.collect(1)
    assert pinned and 2 in done.kept and 2 in run.chain.versions()


@pytest.mark.parametrize("moment", ["put retired/", "delete manifests/", "put pins/clock-"])
def test_a_pin_and_a_collector_at_the_same_moment(moment: str) -> None:
    """Either the version stays, or whoever pins it learns that it was too late."""
    for count in range(6):
        run = Run(5)
        run.chain.shortcut(None, 4)
        left = [count]
        pinned: list[td.Pin] = []
        late: list[str] = []

        class Busy(ClockedStore):
            def _change(self, kind: str, name: str, change: Callable[[], object]) -> None:
                if f"{kind} {name}".startswith(moment) and not name.startswith("pins/eval"):
                    left[0] -= 1  # noqa: B023
                    if left[0] == -1:  # noqa: B023
                        try:
                            pinned.append(open_chain(self).pin(2, "eval"))  # noqa: B023
                        except td.MissingError as error:
                            late.append(error.reason)  # noqa: B023
                super()._change(kind, name, change)

        run.store = busy = Busy(run.store.objects, run.store.now)
        run.collect(1, grace=DAY)
        assert not pinned or 2 in open_chain(busy).versions(), count
        assert not late or "pins/eval.json" not in busy.objects
        run.store = ClockedStore(busy.objects, busy.now)
        run.check()


def test_a_pin_waits_for_no_collector_that_died_long_ago() -> None:
    run = Run(3)
    run.chain.shortcut(None, 2)
    run.store.objects[retired_name(manifest_name(0))] = run.store.objects[manifest_name(0)]
    with pytest.raises(td.MissingError, match="being dropped"):
        run.chain.pin(0, "a")
    run.store.now += DAY / 5
    run.chain.pin(0, "a")
    assert run.collect(1, grace=DAY).dropped == [1]


def test_a_pin_that_comes_too_late_is_told() -> None:
    run = Run(4)
    run.chain.shortcut(None, 3)

    class Late(ClockedStore):
        def put(self, name: str, parts: Iterable[bytes | memoryview]) -> None:
            super().put(name, parts)
            self.delete(manifest_name(1))

    late = Late(run.store.objects, run.store.now)
    with pytest.raises(td.MissingError, match="no version 1"):
        open_chain(late).pin(1, "a")
    assert "pins/a.json" not in late.objects
