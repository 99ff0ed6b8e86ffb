"""`python conformance/mutants [--mutant NAME | --accept-all | --reject-all] [OP REQUEST]`: an adapter.

Without an option it is that of the small reader.
"""

from __future__ import annotations

import sys
from pathlib import Path


def main(arguments: list[str]) -> int:
    """Gives the exit code."""
    from mutants import adapter, mutants, protocol
    from mutants.accept_all import AcceptAll
    from mutants.reject_all import RejectAll

    if arguments[:1] == ["--mutant"]:
        made, rest = mutants.adapter_of(mutants.MUTANTS[arguments[1]]), arguments[2:]
    elif arguments[:1] == ["--accept-all"]:
        made, rest = AcceptAll(), arguments[1:]
    elif arguments[:1] == ["--reject-all"]:
        made, rest = RejectAll(), arguments[1:]
    else:
        made, rest = adapter.Adapter(), arguments
    return protocol.serve(made.handle, rest)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    sys.exit(main(sys.argv[1:]))
