"""The command `tensordelta`, also as `python -m tensordelta`."""

from __future__ import annotations

import json
import os
import sys


def main() -> None:
    """Run the command line, or say how to install it."""
    _open_streams()
    try:
        from .cli import main as command
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("click", "rich"):
            raise
        text = "the command line needs click and rich: pip install 'tensordelta[cli]'"
        if "--json" in sys.argv:
            fault = {"error": "machine", "object": None, "rule": None, "message": text}
            print(json.dumps({"ok": False, "faults": [fault], **fault}))
        sys.exit(text)
    command(prog_name="tensordelta")


def _open_streams() -> None:
    """Open the standard streams that the caller has closed: else a chain's file would get the number of one of them."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)  # the lowest number that is free
            os.set_inheritable(opened, True)  # as standard streams are: a command of `--exec` writes to them
    sys.stdout = sys.stdout or open(1, "w", closefd=False)  # noqa: SIM115 - they last as long as the process
    sys.stderr = sys.stderr or open(2, "w", closefd=False)  # noqa: SIM115


if __name__ == "__main__":
    main()
