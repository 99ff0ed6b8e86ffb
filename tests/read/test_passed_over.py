"""Edges that fail where another route leads to the version: the reader says which, and why."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from wrapped import same, weights

import tensordelta as td
from tensordelta.events import Event
from tensordelta.format.names import shortcut_name

SHORTCUT = shortcut_name(6, 0)


@pytest.fixture
def chain(tmp_path: Path) -> td.Chain:
    """Versions 0 to 6, and a shortcut from 0 to 6, which is the cheapest way."""
    chain = td.open(tmp_path / "chain", create=True, threads=1)
    for step in range(7):
        chain.publish(weights(step))
    chain.shortcut(0, 6)
    assert SHORTCUT in chain.plan(6, 0).route
    return chain


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def _pack(root: Path) -> Path:
    return root / json.loads((root / SHORTCUT).read_text())["packs"][0]["path"]


DAMAGES: dict[str, tuple[Callable[[Path], object], type[td.TensorDeltaError]]] = {
    "a pack with a flipped bit": (lambda root: _flip(_pack(root)), td.IntegrityError),
    "a pack cut short": (lambda root: os.truncate(_pack(root), 10), td.IntegrityError),
    "a pack that is gone": (lambda root: _pack(root).unlink(), td.MissingError),
    "a shortcut that is no JSON": (lambda root: (root / SHORTCUT).write_bytes(b"{"), td.MalformedError),
    "an empty shortcut": (lambda root: (root / SHORTCUT).write_bytes(b""), td.MalformedError),
    "a shortcut with other words": (
        lambda root: (root / SHORTCUT).write_text(
            (root / SHORTCUT).read_text().replace('"fingerprint":"', '"fingerprint":"0', 1)
        ),
        td.MalformedError,
    ),
}
EACH = pytest.mark.parametrize("damage", DAMAGES)


@EACH
@pytest.mark.parametrize("way", ["load", "prepare", "follow", "pull", "follow_folder", "read", "load_part"])
def test_it_is_said(chain: td.Chain, damage: str, way: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = Path(chain.address)
    held, folder = chain.load(0), tmp_path / "out"
    chain.pull(folder, 0)
    spoil, kind = DAMAGES[damage]
    spoil(root)
    events: list[Event] = []
    reader = td.open(root, threads=1, on_event=events.append)
    caplog.clear()
    passed_over: tuple[Exception, ...] | None = None
    if way == "load":
        # From nothing the route begins with version 0 as well.
        assert same(reader.load(), 6)
    elif way == "prepare":
        update = reader.prepare(held)
        update.apply()
        passed_over = update.passed_over
        assert same(held, 6)
    elif way == "follow":
        passed_over = next(reader.follow(held)).passed_over
    elif way == "pull":
        passed_over = reader.pull(folder).passed_over
    elif way == "follow_folder":
        passed_over = next(reader.follow_folder(folder)).passed_over
    elif way == "read":
        reader.read(6, "a")
    else:
        reader.load_part(["a"], 6, held=held)
    said = [event for event in events if event.kind == "passed-over"]
    assert [type(event.fault) for event in said] == [kind]
    assert {event.version for event in said} == {6}
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(warnings) == 1
    (fault,) = [event.fault for event in said]
    assert fault is not None and fault.object in warnings[0]
    assert fault.object.startswith(("packs/", "shortcuts/"))
    if passed_over is not None:
        assert list(passed_over) == [fault]


def test_where_nothing_fails_nothing_is_said(chain: td.Chain, caplog: pytest.LogCaptureFixture) -> None:
    held = chain.load(0)
    caplog.clear()
    assert chain.prepare(held).passed_over == ()
    assert "passed over" not in caplog.text


def test_by_commands(chain: td.Chain, tmp_path: Path) -> None:
    chain.pull(tmp_path / "one", 0)
    chain.pull(tmp_path / "two", 0)
    pack = _pack(Path(chain.address))
    _flip(pack)
    name = pack.relative_to(chain.address).as_posix()

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "tensordelta", "pull", chain.address, *map(str, arguments)]
        environment = os.environ | {"PYTHONPATH": str(Path(td.__file__).parents[1])}
        return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=600, check=True)

    done = run(tmp_path / "one", "--json")
    assert name in done.stderr
    (fault,) = json.loads(done.stdout)["passed_over"]
    assert (fault["error"], fault["object"], fault["rule"]) == ("integrity", name, "TD-MAN-013")
    done = run(tmp_path / "two")
    assert name in done.stderr and name in done.stdout


def test_a_pack_that_another_place_has(chain: td.Chain, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pack = _pack(Path(chain.address))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "any.name").write_bytes(pack.read_bytes())
    _flip(pack)
    held = chain.load(0)
    caplog.clear()
    td.open(chain.address, threads=1, pack_folders=[elsewhere]).prepare(held).apply()
    assert same(held, 6) and pack.name in caplog.text
