"""`python -m tests.crash`, from the root of the repository."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))  # what tests import from

from crash.program import main

if __name__ == "__main__":
    sys.exit(main())
