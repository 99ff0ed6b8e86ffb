"""Write the vectors anew: `python conformance/generate [OUT] [--only MODULE …]`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:] = [str(HERE.parent), *(each for each in sys.path if Path(each or ".").resolve() != HERE)]


def main(argv: list[str] | None = None) -> int:
    """Gives the exit code."""
    from generate import areas, cases

    parser = argparse.ArgumentParser(prog="generate", description="Write the vectors of the conformance suite.")
    parser.add_argument("out", nargs="?", type=Path, default=HERE.parent / "vectors")
    parser.add_argument("--only", nargs="+", metavar="MODULE", help="cases of these modules of areas/ only")
    options = parser.parse_args(argv)
    areas.load(["chains"])  # the twins of many
    chosen = areas.load(options.only).values()
    try:
        count = cases.write(options.out, chosen)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    invalid = sum(not each.valid for each in chosen)
    size = sum(path.stat().st_size for path in options.out.rglob("*") if path.is_file())
    print(f"{count} cases, {invalid} of them invalid, {size / 1e6:.1f} MB in {options.out}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
