"""Adapters that are programs: the long-lived form and the one-shot form (ADAPTER.md)."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import shlex
import signal
import subprocess
import tempfile
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import IO, Any

from .folder import temporary_folder
from .memory import measure
from .names import PROTOCOL
from .protocol import (
    Adapter,
    AdapterError,
    Answer,
    Declined,
    Done,
    Hello,
    Killed,
    Memory,
    Refused,
    Watch,
    parse_answer,
    parse_hello,
    parse_object,
)

_LONGEST_LINE = 1 << 26
_STDERR_LINES = 40
_LONGEST_STDERR_LINE = 1000
_POLL = 0.001
_PATIENCE = 2.0


def split_command(command: str | Sequence[str]) -> list[str]:
    """The words of an adapter's command; quoting as in a shell. Raises ValueError for an empty one."""
    words = shlex.split(command) if isinstance(command, str) else list(command)
    if not words:
        raise ValueError("the adapter's command is empty")
    return words


def _spawn(words: Sequence[str], **streams: Any) -> subprocess.Popen[bytes]:
    # A session of its own, so that what the adapter itself has started is killed with it.
    try:
        return subprocess.Popen(words, start_new_session=True, **streams)
    except OSError as error:
        raise AdapterError(f"{words[0]} cannot be started: {error.strerror or error}") from error


def _kill(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _how_it_ended(code: int) -> str:
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


class _Running:
    """One long-lived process: threads empty its outputs, so that it never blocks on them."""

    def __init__(self, words: Sequence[str], environment: Mapping[str, str]) -> None:
        pipe = subprocess.PIPE
        self.process = _spawn(words, stdin=pipe, stdout=pipe, stderr=pipe, env=environment)
        self.lines: queue.Queue[bytes | None] = queue.Queue()
        self._errors: deque[str] = deque(maxlen=_STDERR_LINES)
        assert self.process.stdin and self.process.stdout and self.process.stderr
        self.stdin: IO[bytes] = self.process.stdin
        self._readers = [
            threading.Thread(target=self._read_answers, args=(self.process.stdout,), daemon=True),
            threading.Thread(target=self._read_errors, args=(self.process.stderr,), daemon=True),
        ]
        for reader in self._readers:
            reader.start()

    def _read_answers(self, stream: IO[bytes]) -> None:
        with contextlib.suppress(OSError, ValueError):
            while line := stream.readline(_LONGEST_LINE):
                self.lines.put(line)
        self.lines.put(None)

    def _read_errors(self, stream: IO[bytes]) -> None:
        with contextlib.suppress(OSError, ValueError):
            while line := stream.readline(_LONGEST_STDERR_LINE):
                self._errors.append(line.decode("utf-8", "replace").rstrip("\n"))

    def stderr(self) -> str:
        """What it wrote to standard error since this was asked last."""
        taken = []
        with contextlib.suppress(IndexError):
            while True:
                taken.append(self._errors.popleft())
        return "\n".join(taken)

    def kill(self) -> None:
        _kill(self.process)
        for reader in self._readers:
            reader.join(_PATIENCE)
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()

    def end(self) -> None:
        """Close its input, as the protocol says, and kill it where that does not end it."""
        with contextlib.suppress(OSError):
            self.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(_PATIENCE)
        self.kill()


class _Program(Adapter):
    """What both forms share: single runs that may be killed."""

    kills = True

    def __init__(self, command: str | Sequence[str]) -> None:
        self._words = split_command(command)
        self._last_stderr = ""
        # What a killed adapter leaves behind goes with the run.
        self._temporary = temporary_folder()
        self._environment = {**os.environ, "TMPDIR": self._temporary.name}

    def close(self) -> None:
        self._temporary.cleanup()

    def complaints(self) -> str:
        taken, self._last_stderr = self._last_stderr, ""
        return taken

    def run_once(self, op: str, members: Mapping[str, Any], timeout: float, watch: Watch | None = None) -> Killed:
        """Do one request in the one-shot form, in a process that `watch` may kill."""
        words = [*self._words, op, json.dumps(members)]
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            begun = time.monotonic()
            process = _spawn(words, stdin=subprocess.DEVNULL, stdout=out, stderr=err, env=self._environment)
            self._last_stderr = ""
            try:
                while process.poll() is None:
                    seconds = time.monotonic() - begun
                    if watch is not None and watch.due(seconds):
                        return Killed(finished=False, seconds=seconds)
                    if seconds > timeout:
                        raise AdapterError(f"no answer to {op} within {timeout:g} s", _tail(err))
                    # A watched run is looked at closely; nobody wants to wait long for the others either.
                    time.sleep(_POLL)
            finally:
                _kill(process)
            seconds = time.monotonic() - begun
            out.seek(0)
            self._last_stderr = _tail(err)
            answer = _one_shot_answer(op, out.read(_LONGEST_LINE), process.returncode, self._last_stderr)
            return Killed(finished=True, seconds=seconds, answer=answer)


def _tail(stream: IO[bytes]) -> str:
    stream.seek(max(0, stream.seek(0, os.SEEK_END) - _STDERR_LINES * _LONGEST_STDERR_LINE))
    lines = stream.read().decode("utf-8", "replace").splitlines()
    return "\n".join(line[:_LONGEST_STDERR_LINE] for line in lines[-_STDERR_LINES:])


def _one_shot_answer(op: str, output: bytes, code: int, stderr: str) -> Answer:
    if not output.strip():
        raise AdapterError(f"{op} ended with {_how_it_ended(code)} and without an answer", stderr)
    try:
        answer = parse_answer(parse_object(output.decode("utf-8")))
    except (AdapterError, UnicodeDecodeError) as error:
        raise AdapterError(str(error), stderr) from error
    said = {Done: 0, Refused: 1, Declined: 3}[type(answer)]
    if code != said:
        raise AdapterError(f"{op} ended with {_how_it_ended(code)}, but its answer means {said}", stderr)
    return answer


class OneShot(_Program):
    """An adapter that is started for each request."""

    holds = False
    form = "one-shot"

    def hello(self, timeout: float) -> Hello:
        return parse_hello(self.call("hello", {"protocol": PROTOCOL}, timeout))

    def call(self, op: str, members: Mapping[str, Any], timeout: float) -> Answer:
        answer = self.run_once(op, members, timeout).answer
        assert answer is not None
        return answer


class LongLived(_Program):
    """An adapter that answers request after request, and is started anew after an error."""

    form = "long-lived"

    def __init__(self, command: str | Sequence[str]) -> None:
        super().__init__(command)
        self._running: _Running | None = None
        self._next = 0
        self._hello: Hello | None = None

    def hello(self, timeout: float) -> Hello:
        self._start(timeout)
        assert self._hello is not None
        return self._hello

    def call(self, op: str, members: Mapping[str, Any], timeout: float) -> Answer:
        return self._exchange(self._start(timeout), op, members, timeout)

    def complaints(self) -> str:
        said = [self._running.stderr()] if self._running is not None else []
        return "\n".join(filter(None, [super().complaints(), *said]))

    def measure(self) -> Memory | None:
        return measure(self._running.process.pid) if self._running is not None else None

    def restart(self) -> None:
        if self._running is not None:
            self._running.kill()
            self._running = None

    def close(self) -> None:
        if self._running is not None:
            self._running.end()
            self._running = None
        super().close()

    def _start(self, timeout: float) -> _Running:
        if self._running is None:
            self._running, self._next = _Running(self._words, self._environment), 0
            answer = self._exchange(self._running, "hello", {"protocol": PROTOCOL}, timeout)
            try:
                self._hello = parse_hello(answer)
            except AdapterError:
                self.restart()
                raise
        return self._running

    def _exchange(self, running: _Running, op: str, members: Mapping[str, Any], timeout: float) -> Answer:
        number, self._next = self._next, self._next + 1
        try:
            return self._ask(running, number, op, members, timeout)
        except AdapterError as error:
            # What it says from now on could be the answer to this request: only a new process is clean.
            self.restart()
            raise AdapterError(str(error), error.stderr or running.stderr()) from error

    def _ask(self, running: _Running, number: int, op: str, members: Mapping[str, Any], timeout: float) -> Answer:
        request = json.dumps({"id": number, "op": op, **members})
        try:
            running.stdin.write(request.encode("utf-8") + b"\n")
            running.stdin.flush()
            line = running.lines.get(timeout=timeout)
        except OSError:
            line = None
        except queue.Empty as error:
            raise AdapterError(f"no answer to {op} within {timeout:g} s") from error
        if line is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                running.process.wait(_PATIENCE)
            running.kill()
            raise AdapterError(f"the adapter ended during {op} with {_how_it_ended(running.process.returncode)}")
        try:
            answer = parse_object(line.decode("utf-8"))
        except UnicodeDecodeError as error:
            raise AdapterError(f"the answer is no UTF-8: {line[:200]!r}") from error
        found = answer.get("id")
        if found != number or isinstance(found, bool):
            raise AdapterError(f"the answer to request {number} has the id {found!r}")
        return parse_answer(answer)
