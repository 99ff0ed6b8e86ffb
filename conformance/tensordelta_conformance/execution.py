"""Doing a case: its steps against an adapter, and the comparison of what comes with what has to come."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from . import wording
from .case import Case, Expectation, Fault, StateRef, Step
from .folder import copy_files, temporary_folder
from .kills import run_with_kills
from .names import WRITING
from .protocol import Adapter, AdapterError, Answer, Declined, Done, Refused, parse_faults
from .pulled import file_differences, pulled_state
from .state import State, StateError, state_differences
from .work import Work, held_afterwards
from .written import Broken, Written


@dataclass(frozen=True)
class Outcome:
    """What came of a check. `status`: pass, fail, error or unsupported; `step` counts from 0."""

    status: str
    step: int | None = None
    expected: str = ""
    got: str = ""
    message: str = ""
    stderr: str = ""
    broken: tuple[str, ...] = ()


class _Stop(Exception):
    """The case is decided."""

    def __init__(self, status: str, expected: str, got: str, message: str = "", broken: tuple[str, ...] = ()) -> None:
        super().__init__(got)
        self.outcome = Outcome(status, None, expected, got, message, "", broken)


Compare = Callable[[Expectation], list[str]]


def do_steps(case: Case, adapter: Adapter, timeout: float) -> Outcome:
    """Do the steps of a case. Never raises for what the adapter does."""
    if case.uses("keys"):
        # With keys a reader remembers what it held as long as it lives; cases have nothing to do with each other.
        adapter.restart()
    with Work(case) as work:
        steps = _Steps(work, adapter, timeout)
        return _decide(work, adapter, steps, steps.run)


def do_verify(case: Case, adapter: Adapter, timeout: float) -> Outcome:
    """Let a verifier look at the chain of a case as it lies in its folder."""
    with Work(case) as work:
        steps = _Steps(work, adapter, timeout)
        step = Step(op="verify", input={"chain": "chain"}, expect=Expectation(faults=case.verify))
        return _decide(work, adapter, steps, lambda: steps.do(step))


def _decide(work: Work, adapter: Adapter, steps: _Steps, run: Callable[[], None]) -> Outcome:
    adapter.complaints()
    try:
        run()
        return Outcome("pass")
    except _Stop as stop:
        found = replace(stop.outcome, stderr=adapter.complaints())
    except AdapterError as error:
        adapter.restart()
        found = Outcome("error", got=str(error), stderr=error.stderr)
    return replace(
        found,
        step=steps.index,
        expected=work.text(found.expected or steps.expected),
        got=work.text(found.got),
        message=work.text(found.message),
        stderr=work.text(found.stderr),
    )


class _Steps:
    """The steps of one case, and what should be held between them."""

    def __init__(self, work: Work, adapter: Adapter, timeout: float) -> None:
        self._work, self._adapter, self._timeout = work, adapter, timeout
        self.index: int | None = None
        """The step that is done."""
        self.expected = ""
        """What has to come of it."""
        self._held: StateRef = None
        self._last: tuple[Path | None, int | None] = (None, None)
        """What was written last, and its version: for adapters that hold nothing between requests."""
        self._written: dict[Path, Written] = {}

    def run(self) -> None:
        for index, step in enumerate(self._work.case.steps):
            self.index = index
            self.do(step)

    def do(self, step: Step) -> None:
        """One step; raises _Stop where it decides the case."""
        self.expected = "" if step.op is None else wording.expected(step, self._work.case.files)
        if step.op is None:
            if step.restart:
                self._adapter.restart()
                self._held, self._last = None, (None, None)
            else:
                self._work.change(step)
        elif step.op == "verify":
            self._verify(step)
        elif step.op == "pull":
            self._pull(step)
        elif step.op in WRITING:
            self._write(step)
        elif step.op == "prepare":
            self._prepare(step)
        else:
            self._read(step)

    # -- what all requests share ---------------------------------------------------------------------------------------

    def _call(self, op: str, members: Mapping[str, Any], skip: Collection[str] = (), kill: int = 0) -> Answer:
        """One request, which may change nothing in the copy but below `skip`."""
        before = self._work.look(skip)
        answer = self._kill(op, members, skip, kill) if kill else self._adapter.call(op, members, self._timeout)
        if isinstance(answer, Declined):
            raise _Stop("unsupported", "", f"{op}: unsupported", answer.why)
        changed = self._work.changed(before, skip)
        if changed:
            raise _Stop("fail", f"{op} changes nothing in the chain or beside it", "; ".join(changed[:5]))
        return answer

    def _kill(self, op: str, members: Mapping[str, Any], skip: Collection[str], kills: int) -> Answer:
        (name,) = skip
        folder = self._work.root / name
        with temporary_folder() as temporary:
            copy = Path(temporary).resolve() / folder.name

            def rehearsal() -> tuple[Mapping[str, Any], Path]:
                copy.mkdir()
                if folder.is_dir():
                    copy_files(folder, copy)
                replaced = {key: str(copy) if value == str(folder) else value for key, value in members.items()}
                return replaced, copy

            after = self._writer(folder).after_kill if op in WRITING else lambda: None
            return run_with_kills(self._adapter, op, members, folder, kills, self._timeout, rehearsal, after)

    def _judge(self, step: Step, given: Answer, compare: Compare) -> Expectation:
        """The alternative that holds; else the case has failed."""
        failures = []
        for each in step.expect.each():
            problems = self._answer_problems(each, given) or compare(each)
            if not problems:
                return each
            failures.append(problems)
        told = [wording.answer(given)]
        for problems in failures:
            told += [problem for problem in problems if problem not in told]
        raise _Stop("fail", self.expected, "; ".join(told), wording.message(given))

    @staticmethod
    def _answer_problems(expect: Expectation, given: Answer) -> list[str]:
        """Whether an answer is of the kind expected; what it is itself is told anyway."""
        if expect.errors:
            return [] if isinstance(given, Refused) and given.error in expect.errors else [wording.answer(given)]
        if not isinstance(given, Done):
            return [wording.answer(given)]
        version = given.members.get("version")
        if expect.version is not None and version is not None and version != expect.version:
            return [wording.answer(given)]
        return []

    # -- reading -------------------------------------------------------------------------------------------------------

    def _before(self, step: Step) -> StateRef:
        if "held" not in step.input:
            return self._held
        held = step.input["held"]
        return None if held is None else str(held["state"])

    def _request(self, step: Step) -> dict[str, Any]:
        members = self._work.request(step.input)
        if not self._adapter.holds and "held" not in members:
            path, version = self._last
            members["held"] = None if path is None else {"state": str(path), "version": version}
        return members

    def _read(self, step: Step) -> None:
        assert step.op is not None
        before = self._before(step)
        out = self._work.outside / f"{self.index}.safetensors"
        members = self._request(step) if step.op == "read" else self._work.request(step.input)
        with contextlib.ExitStack() as stack:
            server = None if step.serve is None else stack.enter_context(self._work.serve(step.serve))
            if server is not None and step.serve is not None and step.serve.folder == "chain":
                members["chain"] = server.url
            self._ask(step, before, out, members)
        if server is not None and step.serve is not None:
            unknown = sorted(set(server.absent) - set(step.serve.absent) - set(step.serve.status))
            if unknown:
                raise _Stop("fail", "only names that something gives are asked for", f"asked for {', '.join(unknown)}")

    def _ask(self, step: Step, before: StateRef, out: Path, members: dict[str, Any]) -> None:
        assert step.op is not None
        limit = min((each.memory for each in step.expect.each() if each.memory is not None), default=None)
        memory = None
        if limit is not None and self._adapter.holds:
            self._adapter.hello(self._timeout)
            memory = self._adapter.measure()
        answer = self._call(step.op, members | {"out": str(out)})
        grown = memory.growth() if memory is not None else None
        try:
            found = held_afterwards(out)
        except StateError as error:
            raise AdapterError(f"the state held after {step.op} cannot be read: {error}") from error

        def compare(expect: Expectation) -> list[str]:
            problems = self._work.differences(expect.state if expect.has_state else before, found)
            if expect.memory is not None and grown is not None and grown > expect.memory:
                problems.append(f"the memory in use grew by {grown:,} bytes at its peak")
            return problems

        chosen = self._judge(step, answer, compare)
        self._held = chosen.state if chosen.has_state else before
        version = self._last[1]
        if isinstance(answer, Done):
            version = answer.members.get("version", chosen.version)
        elif step.input.get("held"):
            version = step.input["held"]["version"]
        self._last = (out if found is not None else None, version)

    def _prepare(self, step: Step) -> None:
        before = self._before(step)
        answer = self._call("prepare", self._request(step))
        self._judge(step, answer, lambda _: [])
        self._held = before

    # -- verifying -----------------------------------------------------------------------------------------------------

    def _verify(self, step: Step) -> None:
        answer = self._call("verify", self._work.request(step.input))
        faults = parse_faults(answer)

        def missing(fault: Fault) -> bool:
            return not any(
                found.error in fault.errors and (not fault.objects or found.object in fault.objects) for found in faults
            )

        for each in step.expect.each():
            if each.faults and not any(map(missing, each.faults)):
                return
            if not each.faults and not faults:
                return
        raise _Stop("fail", self.expected, wording.reported(faults), wording.message(answer))

    # -- a folder kept at a version ------------------------------------------------------------------------------------

    def _pull(self, step: Step) -> None:
        members = self._work.request(step.input)
        folder = Path(members["dir"])
        before: State | None = None
        with contextlib.suppress(StateError):
            before = pulled_state(folder, {})
        answer = self._call("pull", members, skip=(str(step.input["dir"]),), kill=step.kill)

        def compare(expect: Expectation) -> list[str]:
            beside = expect.files or {}
            try:
                found = pulled_state(folder, beside)
            except StateError as error:
                return [str(error)]
            if expect.has_state:
                problems = self._work.differences(expect.state, found)
            else:
                problems = state_differences(before or {}, found or {}) if expect.errors else []
            if expect.files is not None:
                problems += file_differences(folder, beside, self._work.case.files)
            return problems

        self._judge(step, answer, compare)

    # -- writing -------------------------------------------------------------------------------------------------------

    def _writer(self, chain: Path) -> Written:
        return self._written.setdefault(chain, Written(chain))

    def _write(self, step: Step) -> None:
        assert step.op is not None
        inputs = [self._work.request(each) for each in step.race or (step.input,)]
        chain = Path(inputs[0]["chain"])
        written = self._writer(chain)
        skip = (str((step.race or (step.input,))[0]["chain"]),)
        try:
            if step.race:
                before = self._work.look(skip)
                written.race(self._adapter, inputs, self._timeout)
                changed = self._work.changed(before, skip)
                if changed:
                    raise _Stop("fail", "publish changes nothing beside the chain", "; ".join(changed[:5]))
                return
            (members,) = inputs
            written.begin(step.op, members)
            answer = self._call(step.op, members, skip, step.kill)
            written.finish(answer)
        except Broken as broken:
            raise _Stop("fail", broken.expected, broken.got, broken.message, broken.requirements) from broken

        def compare(expect: Expectation) -> list[str]:
            if not expect.has_state or expect.errors or step.op != "publish":
                return []
            try:
                return self._work.differences(expect.state, written.state_of_answer(answer))
            except StateError as error:
                return [str(error)]

        self._judge(step, answer, compare)
