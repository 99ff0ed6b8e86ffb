"""`python -m tensordelta_conformance` is `tensordelta-conformance`."""

from .cli import main

if __name__ == "__main__":
    raise SystemExit(main())
