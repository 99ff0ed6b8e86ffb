"""`python conformance/mutants [--mutant NAME | --accept-all | --reject-all] [OP REQUEST]`: an adapter.

Without an option it is that of the small reader.
"""

from __future__ import annotations

import sys
from pathlib import Path


def main(arguments: list[str]) -> int:
    """Gives the exit code."""
    from mutants.accept_all import AcceptAll
    from mutants.mutants import MUTANTS, adapter_of
    from mutants.reject_all import RejectAll
    from tensordelta_conformance.small_reader.adapter import Adapter, serve

    if arguments[:1] == ["--mutant"]:
        return serve(adapter_of(MUTANTS[arguments[1]]), arguments[2:])
    if arguments[:1] == ["--accept-all"]:
        return serve(AcceptAll(), arguments[1:])
    if arguments[:1] == ["--reject-all"]:
        return serve(RejectAll(), arguments[1:])
    return serve(Adapter(), arguments)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    sys.exit(main(sys.argv[1:]))
