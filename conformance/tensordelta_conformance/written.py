"""What a writer wrote, judged by the bytes (the package `judge`)."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from . import judge as judging
from . import wording
from .protocol import Adapter, AdapterError, Answer, Declined, Done, Killed, Refused
from .small_reader.rejection import Rejection
from .state import State, StateError, Tensor, read_state, state_differences


class Broken(Exception):
    """The chain shows that a Writer requirement is broken."""

    def __init__(self, expected: str, got: str, requirements: tuple[str, ...] = (), message: str = "") -> None:
        super().__init__(got)
        self.expected, self.got, self.requirements, self.message = expected, got, requirements, message


_MOST_VIOLATIONS = 5
_SECOND = ("TD-WRT-006",)


def _model(state: State) -> dict[str, judging.Tensor]:
    return {name: judging.Tensor.of(tensor.dtype, tensor.shape, bytes(tensor.data)) for name, tensor in state.items()}


class Written:
    """A chain that is being written, and the states with which its versions were published."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._published: dict[int, Mapping[str, judging.Tensor]] = {}
        self._op = ""
        self._request: Mapping[str, Any] = {}
        self._before = judging.Snapshot.of(root)
        self._after_kills: list[judging.Snapshot] = []

    def begin(self, op: str, members: Mapping[str, Any]) -> None:
        """A request is about to be made."""
        self._op, self._request = op, members
        self._before = judging.Snapshot.of(self._root)
        self._after_kills = []
        if op == "publish" and "version" in members:
            # A writer that is killed may have published already.
            self._pending(int(members["version"]), members)

    def _pending(self, version: int, members: Mapping[str, Any]) -> None:
        self._published.setdefault(version, _model(read_state(Path(members["state"]))))

    def after_kill(self) -> None:
        """The writer was killed: what is there has to be whole."""
        self._judge(self._request, None)
        self._after_kills.append(judging.Snapshot.of(self._root))

    def finish(self, answer: Answer) -> None:
        """The request was answered. Raises Broken, and AdapterError for an answer without a version."""
        if self._op == "publish":
            if isinstance(answer, Done):
                self._pending(_version(answer), self._request)
            elif "version" in self._request and not self._stands(int(self._request["version"])):
                self._published.pop(int(self._request["version"]), None)
        self._judge(self._request, answer)

    def _stands(self, version: int) -> bool:
        return (self._root / "manifests" / f"{version:012d}.json").exists()

    def _judge(self, members: Mapping[str, Any] | None, answer: Answer | None) -> None:
        found = judging.judge(
            self._root,
            before=self._before,
            published=self._published,
            request=None if members is None else {"op": self._op, **members},
            answer=None if answer is None else wording.as_members(answer),
            between=self._after_kills,
        )
        self._raise(found, answer)

    def _raise(self, found: Sequence[judging.Violation], answer: Answer | None) -> None:
        must = [violation for violation in found if violation.must]
        if not must:
            return
        told = [f"{each.requirement}: {each.object}: {each.message}" for each in must[:_MOST_VIOLATIONS]]
        if len(must) > len(told):
            told.append(f"and {len(must) - len(told)} more")
        raise Broken(
            f"a chain that keeps the requirements for Writers after {self._op}",
            "; ".join(told),
            tuple(dict.fromkeys(each.requirement for each in must if each.requirement.startswith("TD-"))),
            "" if answer is None else wording.message(answer),
        )

    def state_of_answer(self, answer: Answer) -> State:
        """The state of the version that was answered, read from the chain. Raises StateError."""
        assert isinstance(answer, Done)
        version = _version(answer)
        try:
            state = judging.read_version(self._root, version)
        except Rejection as fault:
            raise StateError(f"version {version} cannot be read: {fault}") from fault
        return {name: Tensor(tensor.dtype, tensor.shape, tensor.words.tobytes()) for name, tensor in state.items()}

    def race(self, adapter: Adapter, inputs: Sequence[Mapping[str, Any]], timeout: float) -> None:
        """Let writers publish at once, each in a process of its own: each has to succeed or to report a conflict."""
        self.begin("publish", {key: value for key, value in inputs[0].items() if key != "version"})
        answers = _at_once(adapter, inputs, timeout)
        for answer in answers:
            if isinstance(answer, Declined):
                raise AdapterError(f"publish was declined in a race: {answer.why}")
            if isinstance(answer, Refused) and answer.error != "conflict":
                raise Broken("published, or a conflict", wording.answer(answer), (), wording.message(answer))
        done = [(members, answer) for members, answer in zip(inputs, answers, strict=True) if isinstance(answer, Done)]
        if not done:
            raise Broken("one of the writers publishes", "all report a conflict", _SECOND)
        for members, answer in done:
            version = _version(answer)
            try:
                stands = self.state_of_answer(answer)
            except StateError as error:
                raise Broken(f"version {version} can be read", str(error)) from error
            differences = state_differences(read_state(Path(members["state"])), stands)
            if differences:
                name = Path(members["state"]).name
                told = f"version {version}, told to the writer of {name}; {differences[0]}"
                raise Broken(f"a conflict for the writer of {name}, or its state as version {version}", told, _SECOND)
            self._pending(version, members)
        self._judge(None, None)


def _version(answer: Done) -> int:
    version = answer.members.get("version")
    if not isinstance(version, int) or isinstance(version, bool) or version < 0:
        raise AdapterError(f"publish was answered with the version {version!r}")
    return version


def _at_once(adapter: Adapter, inputs: Sequence[Mapping[str, Any]], timeout: float) -> list[Answer]:
    results: list[Killed | AdapterError | None] = [None] * len(inputs)

    def publish(index: int) -> None:
        try:
            results[index] = adapter.run_once("publish", inputs[index], timeout)
        except AdapterError as error:
            results[index] = error

    threads = [threading.Thread(target=publish, args=(index,)) for index in range(len(inputs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    answers = []
    for result in results:
        if isinstance(result, AdapterError):
            raise result
        if result is None or result.answer is None:
            raise AdapterError("publish gave no answer")
        answers.append(result.answer)
    return answers
