"""An export that is killed at its N-th call of the system, once for each N from a first one on, in steps.

`python killed_export.py FOLDER FORMAT FIRST STRIDE` goes on with what each leaves, and prints how many there were.
"""

from __future__ import annotations

import os
import shutil
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from crossings import PLAIN, exporter, importer, run_of, states

import tensordelta as td

CALLS = ("open", "replace", "link", "mkdir", "unlink", "rename", "write", "fsync", "rmdir")


def killed_at(number: int, work: Callable[[], None]) -> bool:
    """Do the work in a process that ends at a call; false if it came to its end."""
    child = os.fork()
    if not child:
        count = 0

        def ending(call: Callable[..., Any]) -> Callable[..., Any]:
            def called(*arguments: Any, **options: Any) -> Any:
                nonlocal count
                count += 1
                if count == number:
                    os._exit(9)
                return call(*arguments, **options)

            return called

        for name in CALLS:
            setattr(os, name, ending(getattr(os, name)))
        try:
            work()
        except BaseException:
            traceback.print_exc()
            os._exit(3)
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, 9), status
    return status == 9


def main(folder: Path, format: str, first: int, stride: int) -> None:
    run = states(32, 3, PLAIN)
    run_of(folder / "chain", run)
    number = first

    def export() -> None:
        list(exporter(format, td.open(folder / "chain"), folder / "out").all())

    while True:
        for name in ("out", "back"):
            shutil.rmtree(folder / name, ignore_errors=True)
        killed = killed_at(number, export)
        export()
        left = [path.name for path in (folder / "out").iterdir() if path.name.startswith(".")]
        assert left == [], f"killed at {number}: {left}"
        list(importer(format, folder / "out", folder / "back").all())
        back = td.open(folder / "back")
        found = [back.load(version) for version in back.versions()]
        assert len(found) == len(run), f"killed at {number}"
        assert all(mine.equals(theirs) for mine, theirs in zip(found, run, strict=True)), f"killed at {number}"
        if not killed:
            break
        number += stride
    print(f"ended at {(number - first) // stride} calls")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
