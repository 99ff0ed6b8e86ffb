"""Programs that fork: they are processes of their own, since a fork of a test with threads warns, and may hang."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import tensordelta as td

_PRELUDE = """
import os, signal, sys, threading, time
import numpy as np
import tensordelta as td

def forked(work):
    "Do something in a forked child, and print what it gives or raises; a child that says nothing is killed."
    child = os.fork()
    if not child:
        try:
            said = work()
        except BaseException as error:
            said = f"{type(error).__name__}: {error}"
        print(said, flush=True)
        os._exit(0)
    for _ in range(1200):
        if os.waitpid(child, os.WNOHANG) != (0, 0):
            return
        time.sleep(0.05)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    print("says nothing", flush=True)

def weights(step):
    return {"w": np.arange(5000, dtype=np.float32) + (np.arange(5000) < step)}
"""


def run(program: str, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a program, with `forked` and `weights`, to its end."""
    package = str(Path(td.__file__).parents[1])
    return subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", _PRELUDE + program, *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": package} | environment,
        capture_output=True,
        text=True,
        timeout=240,
    )


def lines(program: str, *arguments: object, **environment: str) -> list[str]:
    """The lines that a program prints; it has to end well."""
    done = run(program, *arguments, **environment)
    assert not done.returncode, done.stderr
    return done.stdout.splitlines()
