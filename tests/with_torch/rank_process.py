"""One rank of an engine: a process with a share of a model, which updates together with the others.

    python rank_process.py ADDRESS MEETING RANK RANKS SCENARIO RESULTS

What became of each step of the scenario is written to RESULTS/RANK.json: the version that the rank has, whether its
words are those of that version, and the error.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

import tensordelta as td
import tensordelta.torch as tdt
from tensordelta.torch.device_state import TensorWrite


def share(whole: dict[str, Any], rank: int, ranks: int) -> dict[str, Any]:
    """What a rank has: columns of the matrix, all of the norm, some rows of the odd one, the head in the last alone."""
    columns = whole["matrix"].shape[1] // ranks
    rows = -(-whole["odd"].shape[0] // ranks)
    mine = {
        "matrix": whole["matrix"][:, columns * rank : columns * (rank + 1)],
        "norm": whole["norm"],
        "odd": whole["odd"][rows * rank : rows * (rank + 1)],
    }
    return mine | ({"head": whole["head"]} if rank == ranks - 1 else {})


def parts(mine: dict[str, Any], whole: dict[str, Any], rank: int, ranks: int) -> dict[str, Any]:
    columns, rows = whole["matrix"].shape[1], -(-whole["odd"].shape[0] // ranks)
    found = {
        "matrix": [tdt.part_of(mine["matrix"], columns // ranks * rank, (columns, 1))],
        "norm": [tdt.whole(mine["norm"])],
        "odd": [tdt.part_of(mine["odd"], rows * rank, (1,))],
    }
    return found | ({"head": [tdt.whole(mine["head"])]} if "head" in mine else {})


def main(address: str, meeting: str, rank: int, ranks: int, scenario: dict[str, Any], results: str) -> None:
    dist.init_process_group("gloo", f"file://{meeting}", rank=rank, world_size=ranks, timeout=timedelta(seconds=120))
    chain = td.open(address, threads=1)
    whole = tdt.load(chain, scenario.get("held", 0))
    mine = {name: tensor.clone() for name, tensor in share(whole, rank, ranks).items()}
    if scenario.get("wrong_start") == rank:
        mine["norm"][0] += 1
    told: list[Any] = []
    group = tdt.Ranks(timeout=scenario.get("timeout", 60))

    def start() -> tuple[td.Chain, tdt.DeviceState]:
        if scenario.get("fails_at_start") == rank:
            raise RuntimeError("no such model")
        return chain, tdt.DeviceState(chain.layout(0), parts(mine, whole, rank, ranks), group=group)

    def tell(error: BaseException | None, version: int | None) -> None:
        wanted = None if version is None else share(tdt.load(chain, version), rank, ranks)
        exact = wanted is not None and all(torch.equal(mine[name], wanted[name]) for name in wanted)
        told.append([version, exact, None if error is None else type(error).__name__, str(error)])
        Path(results, f"{rank}.json").write_text(json.dumps(told))

    try:
        engine = tdt.Rank(
            group, start, follow=scenario.get("follow", False), scan_every=scenario.get("scan_every", 0), poll=0.05
        )
    except Exception as error:
        tell(error, None)
        os._exit(0)
    for step in scenario["steps"]:
        undo = act(step, rank, engine, mine)
        error: BaseException | None = None
        try:
            engine.update(step["version"])
        except Exception as caught:
            error = caught
        undo()
        tell(error, engine.version)
    engine.close()
    os._exit(0)  # the others may be gone, with whom the group would be taken down


def act(step: dict[str, Any], rank: int, engine: tdt.Rank, mine: dict[str, Any]) -> Any:
    """Make one rank fail; returns what mends it."""
    if step.get("rank") != rank:
        return lambda: None
    what = step["what"]
    if what == "wait for ready":
        while engine.ready is None or engine.ready.version != step["version"]:
            time.sleep(0.01)
    if what == "flip":
        words = mine[step["tensor"]].view(torch.int16)
        words[step["at"]] ^= 1
        return lambda: words.__setitem__(step["at"], words[step["at"]] ^ 1) if step.get("mended") else None
    if what == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "hang":
        os.kill(os.getpid(), signal.SIGSTOP)
    if what in ("scatter fails", "die in scatter"):
        do, left = TensorWrite.do, [2]

        def failing(write: TensorWrite) -> None:
            left[0] -= 1
            if not left[0]:
                if what == "die in scatter":
                    os.kill(os.getpid(), signal.SIGKILL)
                raise OSError("the device is gone")
            do(write)

        TensorWrite.do = failing  # type: ignore[method-assign]
        return lambda: setattr(TensorWrite, "do", do)
    if what == "prepare fails":
        prepare = engine.chain.prepare

        def fails(*_: Any) -> Any:
            raise td.StoreError("the folder", "read", "packs/…", "out of order")

        engine.chain.prepare = fails  # type: ignore[method-assign]
        return lambda: setattr(engine.chain, "prepare", prepare)
    return lambda: None


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), json.loads(sys.argv[5]), sys.argv[6])
