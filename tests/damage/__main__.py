"""`python -m tests.damage --count 20000 --seed 1`: damages so many chains and folders, and prints what came of it."""

from __future__ import annotations

import argparse
import resource
import sys
import time
from pathlib import Path

_TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(_TESTS), str(_TESTS.parent / "conformance")]

from tried import record  # noqa: E402

from .campaign import Outcome, campaign, rate  # noqa: E402 - the tests' own modules must be found first
from .operations import FAULT  # noqa: E402

#: Bytes of memory that the process may take beyond what it has when the chains are made.
_ROOM = 1 << 30


def main() -> int:
    """Run the campaign; gives the exit status, 1 where a fault was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.damage", description=__doc__)
    parser.add_argument("--count", type=int, default=20_000, help="how many cases (%(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of the cases (%(default)s)")
    parser.add_argument("--first", type=int, default=0, help="the number of the first case")
    parser.add_argument("--only", type=int, help="do the case of this number alone, and print it")
    parser.add_argument("--record", type=Path, help="write the counts into this file, as tests/tried.json")
    given = parser.parse_args()

    def show(outcome: Outcome) -> None:
        if outcome.verdict == FAULT or given.only is not None:
            print(
                f"{outcome}\n  repeat: python -m tests.damage --seed {given.seed} --only {outcome.number}", flush=True
            )

    with campaign(given.seed, show) as made:
        _bound_memory()
        since = time.perf_counter()
        numbers = range(given.first, given.first + given.count) if given.only is None else [given.only]
        made.run(numbers)
        if given.only is None:
            print(made.table())
            print(f"{len(numbers):,} damages of seed {given.seed}, {rate(len(numbers), since)}")
        if given.record is not None:
            record(given.record, "damage", {"seed": given.seed, "count": len(numbers), **made.verdicts()})
    return 1 if made.faults else 0


def _bound_memory() -> None:
    """Have an allocation beyond all reason fail, which is a fault."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + _ROOM
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.getrlimit(resource.RLIMIT_AS)[1]))


if __name__ == "__main__":
    sys.exit(main())
