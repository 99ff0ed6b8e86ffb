"""How work ends at one of its steps: the process is killed or interrupted, or the disk fails.

The disk fails once ("error"), or from a step on at each one ("ENOSPC" and "EDQUOT", which refuse what needs room, and
"EIO", which refuses everything), until the work has ended. The process goes on then, so it is tried again in the same
process. Real limits are those of `resources`.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

from tensordelta.errors import StoreError, TensorDeltaError
from tensordelta.stores.disk import DISK_BUDGET

from .points import STEPS, Step
from .resources import LIMITS, set_limit

#: Ways in which a disk fails from a step on.
FULL = ("ENOSPC", "EDQUOT", "EIO")
#: Ways in which work ends once.
ONCE = ("kill", "interrupt", "error")
#: Characters of a traceback that a child says, so that a pipe holds them.
_SAID = 1000

Work = Callable[[], None]


class End:
    """Ends the process at its `number`-th step, or has the disk fail there, or from there on.

    Attributes:
        number: of the step.
        reached: the step was reached.
    """

    def __init__(self, number: int, how: str) -> None:
        self.number = number
        self._how = how
        self._count = 0
        self._lock = threading.Lock()  # the work may have several threads
        self.reached = False

    def __call__(self, step: Step) -> None:
        how = self._how
        if step.reads and how != "stop":
            return
        if how in FULL and not (step.comes and (step.grows or how == "EIO")):
            return
        with self._lock:
            self._count += 1
            if self._count < self.number or (self._count > self.number and how not in FULL):
                return
            self.reached = True
        if how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if how in FULL:
            code = getattr(errno, how)
            raise OSError(code, os.strerror(code), *([] if step.name is None else [step.name]))
        if how == "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
            return
        if how == "interrupt":
            raise KeyboardInterrupt
        raise OSError(errno.EIO, "the disk fails", step.label)


def unclear(error: BaseException) -> str | None:
    """What is missing in the error of a disk that fails: users expect it, and it says which file is at fault."""
    if isinstance(error, StoreError) or getattr(error, "rule", None) == DISK_BUDGET:
        return None
    if not isinstance(error, OSError):  # above all, no fault of the data
        return f"a {type(error).__name__} for a disk that fails: {error}"
    if error.errno is None or error.strerror is None:
        return f"an error without a reason: {error!r}"
    return None if error.filename is not None else f"an error that names no file: {error!r}"


class Outcome(NamedTuple):
    """What became of a child.

    Attributes:
        how: "killed"; "raised" an error that says what failed; "went on" although the disk failed; "done" before the
            step was reached.
        fault: what went wrong in another way; None if nothing did.
    """

    how: str
    fault: str | None = None

    @property
    def early(self) -> bool:
        """True if the step was reached."""
        return self.how != "done"


class Child:
    """A forked child that does the work and ends, or stops, at its `number`-th step.

    Args:
        work: the work.
        number: the step.
        how: how it ends.
        again: done in the same child after a disk that failed, and works again.
    """

    def __init__(self, work: Work, number: int, how: str, again: Work | None = None) -> None:
        self._how = how
        self._answer, write = os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            os.close(self._answer)
            end = End(number, how)
            try:
                outcome = _child(work, end, how, again)
            except BaseException:
                outcome = Outcome("raised" if end.reached else "done", traceback.format_exc()[-_SAID:])
            with suppress(BaseException):
                os.write(write, json.dumps(outcome).encode())
            os._exit(0)
        os.close(write)

    def stopped(self) -> bool:
        """Wait until it stops, or ends; True if it stopped."""
        status = os.waitid(os.P_PID, self._pid, os.WEXITED | os.WSTOPPED | os.WNOWAIT)
        return status is not None and status.si_code == os.CLD_STOPPED

    def go_on(self) -> None:
        """Let it go on after it stopped."""
        os.kill(self._pid, signal.SIGCONT)

    def outcome(self) -> Outcome:
        """What became of it; waits until it ends."""
        with os.fdopen(self._answer, "rb") as answer:
            said = answer.read()
        _, status = os.waitpid(self._pid, 0)
        if not os.WIFSIGNALED(status):
            return Outcome(*json.loads(said))
        if os.WTERMSIG(status) == signal.SIGKILL and self._how == "kill":
            return Outcome("killed")
        return Outcome("killed", f"signal {os.WTERMSIG(status)}")


def forked(work: Work, number: int, how: str, again: Work | None = None) -> Outcome:
    """Do the work in a child that ends at its `number`-th step; see `Child`."""
    return Child(work, number, how, again).outcome()


class Stopped:
    """A child that is stopped, or has ended before.

    Attributes:
        is_stopped: it is stopped.
    """

    def __init__(self, work: Work, number: int) -> None:
        self._child = Child(work, number, "stop")
        self.is_stopped = self._child.stopped()

    def go_on(self) -> Outcome:
        """Let it go on, if it is stopped; gives what became of it. An error that it raised is the outcome's fault."""
        if self.is_stopped:
            self._child.go_on()
        return self._child.outcome()


def _child(work: Work, end: End, how: str, again: Work | None) -> Outcome:
    if how in LIMITS:
        set_limit(how, end.number)
    else:
        STEPS.act = end
    try:
        work()
    except (KeyboardInterrupt, OSError, TensorDeltaError) as error:
        STEPS.act = None
        if how == "stop" and isinstance(error, TensorDeltaError | StoreError):
            return Outcome("raised", f"{'store: ' if isinstance(error, StoreError) else ''}{error}")
        if how in FULL or how in LIMITS:
            fault = unclear(error)
            if fault is not None:
                return Outcome("raised", f"{fault}\n{traceback.format_exc()[-_SAID:]}")
        elif not (isinstance(error, KeyboardInterrupt) or (isinstance(error, OSError) and error.errno == errno.EIO)):
            raise
        if again is not None:
            again()
        return Outcome("raised")
    return Outcome("went on" if end.reached else "done")
