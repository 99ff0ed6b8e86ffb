"""How much a reader may write to disk (SPEC.md section 9.2)."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from ..errors import LimitError

#: The rule that a thing of more bytes than the budget breaks.
DISK_BUDGET = "TD-LIM-007"


class Disk:
    """A reader's disk budget. It is asked before the first byte of something is written.

    Args:
        limit: bytes that one thing may take: the packs of a route, the files of a version, an undo record. By default
            nine tenths of what the file system has free at that moment.
    """

    def __init__(self, limit: int | None = None) -> None:
        self.limit = limit

    def check(self, amount: int, place: str | os.PathLike[str], *, object: str) -> None:
        """Check that something may be written.

        Args:
            amount: its bytes.
            place: a path in the file system, which need not exist yet.
            object: how errors name what asks for it.

        Raises:
            LimitError: it would pass the budget.
        """
        limit = _free(Path(place)) * 9 // 10 if self.limit is None else self.limit
        if amount > limit:
            raise LimitError(
                f"needs {amount:,} bytes of disk, the budget is {limit:,}",
                object=object,
                rule=DISK_BUDGET,
                advice="Free some disk, or raise the budget (disk=…), if you trust the chain.",
            )


def _free(path: Path) -> int:
    while not path.exists() and path != path.parent:
        path = path.parent
    return shutil.disk_usage(path).free
