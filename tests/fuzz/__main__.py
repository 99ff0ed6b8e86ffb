"""`python -m tests.fuzz TARGET…|all --seconds N`: fuzzes targets, each for its share of the time.

With atheris installed, coverage guides it; else inputs are changed at random. What a target may not do is printed, and
written into a file that the same command runs again: `python -m tests.fuzz TARGET --input FILE`.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import signal
import sys
import tempfile
import time
import traceback
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from random import Random
from types import FrameType
from typing import NoReturn

_TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(_TESTS), str(_TESTS.parent / "conformance")]

with suppress(ImportError):
    import atheris

    if not {"--plain", "--input"} & {*sys.argv}:
        with atheris.instrument_imports(include=["tensordelta"]):
            import_module("fuzz.corpus")

from tried import record  # noqa: E402

from fuzz.corpus import seeds  # noqa: E402 - the tests' own modules must be found first
from fuzz.mutation import LONGEST, mutated  # noqa: E402
from fuzz.targets import TARGETS  # noqa: E402

#: Bytes that a process may take beyond what it has at the start, and seconds that one input may take.
_ROOM = 1 << 30
_SECONDS = 10


class HungError(BaseException):
    """An input takes too long."""


def main() -> int:
    """Fuzz; gives the exit status, 1 where something was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("targets", metavar="TARGET", nargs="+", choices=[*TARGETS, "all"])
    parser.add_argument("--seconds", type=int, default=60, help="in all (%(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of the random changes (%(default)s)")
    parser.add_argument("--input", type=Path, help="run this input alone")
    parser.add_argument(
        "--found", type=Path, default=Path("fuzz-found"), help="a folder for what is found (%(default)s)"
    )
    parser.add_argument("--plain", action="store_true", help="do without atheris")
    parser.add_argument("--record", type=Path, help="add the counts to this file, as tests/tried.json")
    given = parser.parse_args()
    if given.input is not None:
        for name in given.targets:
            TARGETS[name](given.input.read_bytes())
        return 0
    names = [*TARGETS] if "all" in given.targets else given.targets
    share = max(1, given.seconds // len(names))
    counts = {}
    for name in names:
        counts[name] = _in_a_child(name, share, given.seed, given.found, plain=given.plain)
        if given.record is not None:
            _add(given.record, name, *counts[name], share)
    print(f"{sum(count for count, _ in counts.values()):,} inputs of {len(names)} targets")
    return 1 if any(found for _, found in counts.values()) else 0


def _add(path: Path, name: str, count: int, found: bool, seconds: int) -> None:
    """Add what was done to what earlier runs have counted."""
    before = json.loads(path.read_text()).get("fuzz", {}) if path.exists() else {}
    executions = before.get("executions", {})
    executions[name] = executions.get(name, 0) + count
    wrong = sorted({*before.get("found", [])} - {name} | ({name} if found else set()))
    record(path, "fuzz", {"seconds": before.get("seconds", 0) + seconds, "executions": executions, "found": wrong})


def _in_a_child(name: str, seconds: int, seed: int, found: Path, *, plain: bool) -> tuple[int, bool]:
    """Fuzz a target in a child, which it may end; gives the number of inputs, and whether something was found."""
    inputs = seeds(name)
    with tempfile.TemporaryFile() as output:
        child = os.fork()
        if not child:
            status = 1
            try:
                for stream in (1, 2):
                    os.dup2(output.fileno(), stream)
                status = _loop(name, inputs, seconds, seed, found, plain=plain)
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(status)
        _, status = os.waitpid(child, 0)
        output.seek(0)
        said = output.read().decode(errors="replace")
    counted = re.findall(r"^(?:Done |stat::number_of_executed_units: |#)(\d+)", said, re.MULTILINE)
    count = max(map(int, counted), default=0)
    print(f"{name:20} {count:12,} inputs in {seconds} s{', and this was found:' if status else ''}")
    if status:
        print(said[-4000:])
    sys.stdout.flush()
    return count, status != 0


def _loop(name: str, inputs: list[bytes], seconds: int, seed: int, found: Path, *, plain: bool) -> int:
    found.mkdir(exist_ok=True)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + _ROOM
    if not plain and "atheris" in globals():
        _guided(name, inputs, seconds, seed, found)
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.getrlimit(resource.RLIMIT_AS)[1]))
    return _unguided(name, inputs, seconds, seed, found)


def _guided(name: str, inputs: list[bytes], seconds: int, seed: int, found: Path) -> NoReturn:
    """Fuzz with atheris, which ends the process."""
    folder = found / "corpus" / name
    folder.mkdir(parents=True, exist_ok=True)
    for number, data in enumerate(inputs):
        (folder / f"seed-{number:04}").write_bytes(data)

    def mutator(data: bytes, longest: int, seed: int) -> bytes:
        rng = Random(seed)
        if rng.random() < 0.5:
            return bytes(atheris.Mutate(data, longest))
        return mutated(data, inputs, rng)[:longest]

    arguments = ["fuzz", str(folder), f"-max_total_time={seconds}", f"-seed={seed}", f"-max_len={LONGEST}"]
    arguments += [f"-timeout={_SECONDS}", "-rss_limit_mb=1500", f"-artifact_prefix={found}/{name}-"]
    atheris.Setup([*arguments, "-print_final_stats=1"], TARGETS[name], custom_mutator=mutator)
    atheris.Fuzz()
    sys.exit(0)


def _unguided(name: str, inputs: list[bytes], seconds: int, seed: int, found: Path) -> int:
    """Run the inputs, and change them at random until the time is up, or something is found."""

    def ring(_: int, __: FrameType | None) -> None:
        raise HungError(f"more than {_SECONDS} seconds")

    signal.signal(signal.SIGALRM, ring)
    rng, until, done = Random(f"{seed}/{name}"), time.monotonic() + seconds, 0
    while time.monotonic() < until:
        data = inputs[done] if done < len(inputs) else mutated(rng.choice(inputs), inputs, rng)
        done += 1
        signal.setitimer(signal.ITIMER_REAL, _SECONDS)
        try:
            TARGETS[name](data)
        except (Exception, HungError):
            path = found / f"{name}-{os.getpid()}-{done}"
            path.write_bytes(data)
            traceback.print_exc()
            print(f"repeat: python -m tests.fuzz {name} --input {path}")
            print(f"Done {done} runs")
            return 1
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    print(f"Done {done} runs")
    return 0


if __name__ == "__main__":
    sys.exit(main())
