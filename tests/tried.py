"""What was tried against the package, and how often: `python -m tests.tried` prints the guide's table.

The programs that damage, kill and fuzz write what they counted into tests/tried.json when they run with `--record`;
cases of hostile folders are counted among the tests.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RECORD = ROOT / "tests" / "tried.json"
#: Tests of folders that others prepared, changed or damaged.
_FOLDERS = [
    *(
        f"tests/checkout/test_{name}.py"
        for name in ("hostile_folder", "prepared_folders", "altered_folders", "lost_words")
    ),
    *(f"tests/write/test_{name}.py" for name in ("hostile_checkpoints", "key_files", "odd_folders")),
]


def record(path: Path, key: str, value: object) -> None:
    """Put what a program counted into a record, and leave the rest of it.

    Args:
        path: the record, such as `RECORD`.
        key: the program's own: "damage", "fuzz" or "kills".
        value: what it counted; of "kills" a mapping with `count` and `command`, and `wrong` if any was.
    """
    counted = json.loads(path.read_text()) if path.exists() else {}
    counted[key] = value
    path.write_text(json.dumps(counted, indent=2, sort_keys=True) + "\n")


def table() -> str:
    """The table, in Markdown."""
    counted = json.loads(RECORD.read_text())
    rows = [_damage(counted["damage"]), _kills(counted.get("kills")), _fuzz(counted["fuzz"]), _folders()]
    head = "| what was tried | how often | went wrong | again with |\n|---|---|---|---|\n"
    return head + "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _damage(counted: dict[str, Any]) -> list[str]:
    what = (
        "damage to the objects of chains, also with digests that match it, to pulled folders, snapshots and caches:"
        f" {counted['detected']:,} times an error and nothing changed, {counted['harmless']:,} times the right"
        f" weights all the same, {counted['older']:,} times an older version, where the newest was gone"
    )
    command = f"python -m tests.damage --count {counted['count']} --seed {counted['seed']}"
    return [what, f"{counted['count']:,}", f"{counted['FAULT']:,}", f"`{command}`"]


def _kills(counted: dict[str, Any] | None) -> list[str]:
    what = "processes killed, or stopped while another one works, at a step of what they do"
    if counted is None:
        return [what, "not counted", "", "`pytest tests/crash`"]
    return [what, f"{counted['count']:,}", f"{counted.get('wrong', 0):,}", f"`{counted['command']}`"]


def _fuzz(counted: dict[str, Any]) -> list[str]:
    executions = counted["executions"]
    what = f"bytes of any kind given to {len(executions)} parsers, guided by coverage"
    command = f"python -m tests.fuzz all --seconds {counted['seconds']}"
    return [what, f"{sum(executions.values()):,}", f"{len(counted['found']):,}", f"`{command}`"]


def _folders() -> list[str]:
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", *_FOLDERS]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    count = sum("::" in line for line in done.stdout.splitlines())
    what = "cases of folders, checkpoints and keys that others prepared or changed, and of disks that lost bits"
    return [what, f"{count:,}", "0", f"`pytest {' '.join(_FOLDERS)}`"]


if __name__ == "__main__":
    print(table(), end="")
