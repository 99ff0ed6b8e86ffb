"""Does the trials that a specification in JSON says, in a process of its own: `python -m crash.driver SPEC.json`."""

from __future__ import annotations

import gc
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from tensordelta.checkout import staging
from tensordelta.keep import copy

from .points import STEPS
from .scenes import SCENES
from .trials import Trials

#: Failures that a report has in words.
_SHOWN = 20


def main(spec: dict[str, Any]) -> dict[str, object]:
    """Do what a specification says; gives the number of times that the work ended early, and what was wrong then."""
    STEPS.install()
    staging._ARENA = 64  # so that the tests' small states take the way of large ones
    copy.PARALLEL = 1  # so that each run takes the same steps
    scratch = Path(tempfile.mkdtemp(dir=spec["scratch"]))
    trials = Trials(SCENES[spec["kind"]](spec), Path(spec["template"]), scratch)
    gc.disable()  # so that a child shares its parent's memory
    gc.freeze()
    for how, stride in spec["ways"].items():
        trials.go(how, stride)
    shutil.rmtree(scratch)
    return {"ends": trials.ends, "failures": trials.failures[:_SHOWN], "failed": len(trials.failures)}


if __name__ == "__main__":
    print(json.dumps(main(json.loads(Path(sys.argv[1]).read_text()))))
