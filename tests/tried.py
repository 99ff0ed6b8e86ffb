"""What was tried against the package, and how often: `python -m tests.tried` prints README's table.

The programs that damage, kill and fuzz write their counts into tests/tried.json when they are run with `--record`;
hostile folders are counted in the tests.
"""

from __future__ import annotations

import json
from pathlib import Path

TESTS = Path(__file__).parent
RECORD = TESTS / "tried.json"


def record(path: Path, key: str, value: object) -> None:
    """Put what a program counted into a record, and leave the rest of it.

    Args:
        path: the record, such as `RECORD`.
        key: the program's own: "damage", "fuzz", "kills".
        value: what it counted.
    """
    told = json.loads(path.read_text()) if path.exists() else {}
    told[key] = value
    path.write_text(json.dumps(told, indent=2, sort_keys=True) + "\n")
