"""The benchmark over a slow link runs, its engines end with the right weights, and its link is as slow as it says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "reference" / "benchmarks"
NAMES = {"tensordelta, natural order", "tensordelta, exponent order", "int32+bf16", "xor+zstd-1"}


def test_the_link_is_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes take their time, and those of several requests at once take as long as all of them one after the other."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from link import Link

    link = Link()
    link.throttle(80, 0.0)  # 10 MB/s
    started = time.perf_counter()
    senders = [threading.Thread(target=link.up.send, args=(500_000,)) for _ in range(4)]
    for sender in senders:
        sender.start()
    link.down.send(500_000)
    assert time.perf_counter() - started >= 0.05
    for sender in senders:
        sender.join()
    assert time.perf_counter() - started >= 0.2
    assert (link.up.count, link.down.count) == (2_000_000, 500_000)
    link.throttle(None, 0.0)
    link.up.send(1 << 30)


@pytest.mark.slow
def test_the_program(tmp_path: Path) -> None:
    target = tmp_path / "figures.json"
    arguments = ["--size", "1MiB", "--rounds", "1", "--mbit", "8,1000", "--latency", "1", "--json", str(target)]
    command = [sys.executable, str(BENCHMARKS / "network.py"), *arguments, "--folder", str(tmp_path)]
    environment = {**os.environ, "PYTHONWARNINGS": "error"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    facts = json.loads(target.read_text())
    assert {(row["name"], row["mbit"]) for row in facts["rows"]} == {
        (name, rate) for name in NAMES for rate in (8, 1000)
    }
    for row in facts["rows"]:
        assert row["submit"] > 0 and 0 < row["visible"] <= row["applied"] and row["prepared"] <= row["applied"]
        # Everything sent went up and came down again, at 1 MB/s or at 125.
        assert row["fetched"] >= row["sent"] * 0.9 > 0
        assert row["applied"] >= (row["sent"] + row["fetched"]) / (row["mbit"] * 1e6 / 8) * 0.8
    slow = {row["name"]: row for row in facts["rows"] if row["mbit"] == 8}
    assert slow["int32+bf16"]["sent"] == pytest.approx(facts["model"]["changed"] * 6, rel=0.1)
    assert "8 Mbit/s" in done.stdout and "1000 Mbit/s" in done.stdout
    assert not list(tmp_path.glob("tensordelta-network-*"))
