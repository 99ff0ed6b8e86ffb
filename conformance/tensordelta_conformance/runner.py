"""Running cases: which ones apply, in which order, by how many adapters at once."""

from __future__ import annotations

import contextlib
import datetime
import json
import platform
import queue
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from . import wording
from .case import Case, HugeState, StateRef
from .execution import Outcome, do_steps, do_verify
from .known import KnownFailure, faults_of_list
from .names import LEVELS
from .protocol import Adapter, Hello
from .results import COUNTED, Check, Report, Run
from .state import byte_count
from .suite import Suite, parts_of

TIMEOUT = 20.0
"""Seconds for a request, unless told otherwise."""

_HUGE_PATIENCE = 15
"""How many times as long a request of a huge case may take."""

_HUGE_BYTES = 1 << 28
_PATIENCE = 5.0
_HOLDING = ("apply", "undo", "prepare")

OnCheck = Callable[[Check, int, int], None]


@dataclass(frozen=True)
class Options:
    """What a run does.

    `levels` None: those that the adapter claims. `only`: patterns of case ids. `known`: known failures by case id.
    """

    levels: tuple[str, ...] | None = None
    only: tuple[str, ...] = ()
    huge: bool = False
    timeout: float = TIMEOUT
    jobs: int = 1
    known: Mapping[str, KnownFailure] | None = None
    command: str = ""


@dataclass(frozen=True)
class _Task:
    case: Case
    part: str

    @property
    def level(self) -> str:
        return self.case.level if self.part == "steps" else "verifier"


def run_suite(
    suite: Suite, adapters: Callable[[], Adapter], options: Options, on_check: OnCheck | None = None
) -> Report:
    """Run the cases of a suite.

    `adapters` makes an adapter for each of `options.jobs` workers. `on_check` is told each check as it is done, with
    how many are done and how many there are. Raises SuiteError, and AdapterError where the adapter does not say who it
    is.
    """
    started = datetime.datetime.now(datetime.UTC)
    begun = time.monotonic()
    first = adapters()
    try:
        hello = first.hello(options.timeout)
        levels = tuple(level for level in LEVELS if level in (options.levels or hello.levels))
        wanted = frozenset(levels)
        tasks = [_Task(case, part) for case in suite.select(levels, options.only) for part in parts_of(case, wanted)]
        checks, interrupted = _Pool(first, adapters, hello, options, on_check).run(tasks)
    finally:
        first.close()
    statuses: dict[str, set[str]] = {}
    for check in checks:
        if check.status != "not-applicable":
            statuses.setdefault(check.case.id, set()).add(check.status)
    return Report(
        hello=hello,
        run=Run(
            form=first.form,
            levels=levels,
            command=options.command,
            only=options.only,
            huge=options.huge,
            timeout=options.timeout,
            jobs=options.jobs,
            started=started.strftime("%Y-%m-%dT%H:%M:%SZ"),
            seconds=round(time.monotonic() - begun, 3),
            platform=f"{platform.system()} {platform.machine()}",
            python=platform.python_version(),
        ),
        suite=suite,
        checks=checks,
        list_faults=[] if interrupted else faults_of_list(options.known or {}, set(suite.cases), statuses),
        interrupted=interrupted,
    )


class _Pool:
    """Workers, each with an adapter of its own."""

    def __init__(
        self,
        first: Adapter,
        adapters: Callable[[], Adapter],
        hello: Hello,
        options: Options,
        on_check: OnCheck | None,
    ) -> None:
        self._first, self._adapters = first, adapters
        self._hello, self._options, self._on_check = hello, options, on_check

    def run(self, tasks: Sequence[_Task]) -> tuple[list[Check], bool]:
        """The checks in the order of the tasks, and whether the user interrupted."""
        found: dict[int, Check] = {}
        extra = [self._adapters() for _ in range(min(self._options.jobs, len(tasks)) - 1)]
        try:
            for index, check in self._in_threads(tasks, extra) if extra else self._in_turn(tasks):
                found[index] = check
                if self._on_check is not None:
                    self._on_check(check, len(found), len(tasks))
        except KeyboardInterrupt:
            pass
        finally:
            for each in extra:
                each.close()
        return [found[index] for index in sorted(found)], len(found) < len(tasks)

    def _do(self, task: _Task, adapter: Adapter) -> Check:
        return check_task(task.case, task.part, adapter, self._hello, self._options)

    def _in_turn(self, tasks: Sequence[_Task]) -> Iterator[tuple[int, Check]]:
        for index, task in enumerate(tasks):
            yield index, self._do(task, self._first)

    def _in_threads(self, tasks: Sequence[_Task], extra: Sequence[Adapter]) -> Iterator[tuple[int, Check]]:
        waiting: queue.SimpleQueue[tuple[int, _Task]] = queue.SimpleQueue()
        done: queue.SimpleQueue[tuple[int, Check] | BaseException] = queue.SimpleQueue()
        for item in enumerate(tasks):
            waiting.put(item)

        def work(adapter: Adapter) -> None:
            try:
                while True:
                    index, task = waiting.get_nowait()
                    done.put((index, self._do(task, adapter)))
            except queue.Empty:
                pass
            except BaseException as error:
                done.put(error)

        threads = [threading.Thread(target=work, args=(each,), daemon=True) for each in (self._first, *extra)]
        for thread in threads:
            thread.start()
        try:
            for _ in tasks:
                result = done.get()
                if isinstance(result, BaseException):
                    raise result
                yield result
        finally:
            # Whoever is still at work finishes its case, so that its temporary folder goes.
            with contextlib.suppress(queue.Empty):
                while True:
                    waiting.get_nowait()
            for thread in threads:
                thread.join(_PATIENCE)


def check_task(case: Case, part: str, adapter: Adapter, hello: Hello, options: Options) -> Check:
    """Do one part of a case, if it applies to the adapter."""
    level = case.level if part == "steps" else "verifier"
    reason, without = _not_applicable(case, part, adapter, hello, options)
    if reason:
        return Check(case, part, level, "not-applicable", reason=reason, without=without)
    timeout = options.timeout * (_HUGE_PATIENCE if "huge" in case.flags else 1)
    begun = time.monotonic()
    try:
        outcome = (do_steps if part == "steps" else do_verify)(case, adapter, timeout)
    except Exception as error:
        # A fault of the case or of the runner must not end the run, nor pass for a result.
        adapter.restart()
        told = "".join(traceback.format_exception(error)[-6:])
        got = f"the case cannot be done: {type(error).__name__}: {error}"
        outcome = Outcome("error", expected=wording.expected_of_case(case, part), got=got, stderr=told)
    check = Check(
        case,
        part,
        level,
        outcome.status,
        seconds=round(time.monotonic() - begun, 4),
        step=outcome.step,
        expected=outcome.expected,
        got=outcome.got,
        message=outcome.message,
        stderr=outcome.stderr,
        broken=outcome.broken,
    )
    known = (options.known or {}).get(case.id)
    if known is not None and check.status in COUNTED:
        return replace(check, status="expected-failure", reason=known.reason, link=known.link)
    return check


def _not_applicable(
    case: Case, part: str, adapter: Adapter, hello: Hello, options: Options
) -> tuple[str, tuple[str, ...]]:
    """Why a check does not apply, and what is missing; empty where it applies."""
    if _order(case.since) > _order(hello.spec):
        return f"it is of version {case.since} of the specification", (f"spec {case.since}",)
    if "huge" in case.flags and not options.huge:
        return "it needs much memory and was not asked for", ("huge",)
    if hello.memory is not None and hello.memory < (need := _memory(case)):
        return f"it needs {need:,} bytes of memory, and the adapter has {hello.memory:,}", ("huge",)
    if part == "verify":
        return "", ()
    lacking = tuple(need for need in case.needs if need not in hello.capabilities and need not in hello.levels)
    if lacking:
        return f"it needs {', '.join(lacking)}", lacking
    if not adapter.holds and any(step.op in _HOLDING for step in case.steps):
        return "it needs an adapter that holds its state between requests", ("prepare",)
    if not adapter.kills and any(step.kill or step.race for step in case.steps):
        return "it needs an adapter that is a program", ("kill",)
    return "", ()


def _order(version: str) -> tuple[list[int], bool, str]:
    """By numbers; a version with a tag comes before that version."""
    numbers, dash, tag = version.partition("-")
    return [int(part) if part.isdigit() else 0 for part in numbers.split(".")[:2]], not dash, tag


def _memory(case: Case) -> int:
    """Bytes of memory that a case needs: the old and the new state, and for huge ones at least what the flag says."""
    refs: list[StateRef] = []
    for step in case.steps:
        refs += [each.state for each in step.expect.each()]
        if isinstance(step.input.get("held"), Mapping):
            refs.append(step.input["held"]["state"])
    sizes = (_bytes(case, ref) for ref in refs)
    return max(2 * max(sizes, default=0), _HUGE_BYTES if "huge" in case.flags else 0)


def _bytes(case: Case, ref: StateRef) -> int:
    if ref is None:
        return 0
    if isinstance(ref, HugeState):
        layout = json.loads(case.files[ref.layout])
        return sum(byte_count(entry["dtype"], tuple(entry["shape"])) for entry in layout["tensors"])
    return len(case.files[ref])


def chosen_levels(levels: Iterable[str] | None) -> tuple[str, ...] | None:
    """Levels as an option. Raises ValueError for one that does not exist."""
    if levels is None:
        return None
    chosen = tuple(levels)
    unknown = sorted(set(chosen) - set(LEVELS))
    if unknown:
        raise ValueError(f"there is no level {', '.join(unknown)}; the levels are {', '.join(LEVELS)}")
    return chosen
