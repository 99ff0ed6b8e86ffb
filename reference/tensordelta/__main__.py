"""The command `tensordelta`, also as `python -m tensordelta`."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line, or say how to install it."""
    try:
        from .cli import main as command
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("click", "rich"):
            raise
        sys.exit("the command line needs click and rich: pip install 'tensordelta[cli]'")
    command(prog_name="tensordelta")


if __name__ == "__main__":
    main()
