"""`python -m tests.notebooks [NUMBER…]`, from the root of the repository: execute notebooks, and keep their outputs."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))  # what tests import from

from notebooks.running import NOTEBOOKS, execute, save

if __name__ == "__main__":
    for path in NOTEBOOKS:
        if len(sys.argv) == 1 or path.name[0] in sys.argv[1:]:
            print(path.name, flush=True)
            save(execute(path), path)
