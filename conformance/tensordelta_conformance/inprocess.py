"""Adapters without a process: a function that answers requests, and functions that read, verify or write."""

from __future__ import annotations

import copy
import traceback
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .names import CAPABILITIES, ERRORS, PROTOCOL, SPEC_VERSION
from .protocol import Adapter, AdapterError, Answer, Declined, Done, Hello, Refused, parse_answer, parse_hello
from .state import State, StateError, Tensor, as_state, encode_state, read_state

_NOTHING: Any = object()


class Rejected(Exception):
    """Raised by a reader, verifier or writer under test for a rejection.

    `error` is a name of SPEC.md section 17; `object`, `rule` and `message` are for people. `state`: the state held
    afterwards, as a reader returns one, or None for nothing; without it the held state that the reader was given
    counts, as the reader left it. Raises ValueError for an error outside the closed set.
    """

    def __init__(
        self,
        error: str,
        message: str = "",
        *,
        object: str | None = None,
        rule: str | None = None,
        state: Any = _NOTHING,
    ) -> None:
        if error not in ERRORS:
            raise ValueError(f"{error!r} is no error of SPEC.md section 17: {', '.join(ERRORS)}")
        super().__init__(f"{error}: {message}" if message else error)
        self.error, self.message, self.object, self.rule, self.state = error, message, object, rule, state


class Unsupported(Exception):
    """Raised by a reader, verifier or writer under test for what it does not do."""


@dataclass
class Held:
    """The state that the reader holds: its own, to change in place or to copy.

    The tensors' data are bytearrays. `version` is the one remembered for the state, or None.
    """

    state: State
    version: int | None


@dataclass(frozen=True)
class ReadRequest:
    """Bring the state held to a version of a chain (ADAPTER.md, `read`)."""

    chain: Path | str
    """The root: a folder, or a URL that begins with `http://` (level `follow`)."""
    to: int | None
    """The version wanted; None: the newest."""
    held: Held | None
    """None: nothing is held."""
    tensors: tuple[str, ...] | None = None
    """Be a reader of these tensors only (SPEC.md section 9.4)."""
    memory: int | None = None
    """The budget in bytes."""
    sources: tuple[str, ...] = ()
    """The source schemes that the user allows."""
    places: tuple[Path, ...] = ()
    """Folders in which packs may be found by any name."""
    pin: str | None = None
    """The chain id that the reader has pinned."""
    keys: tuple[bytes, ...] = ()
    """Ed25519 public keys that the user trusts, 32 bytes each."""
    threshold: int = 1
    """How many of them must have signed."""
    back: bool = False
    """The user allows going back (with keys)."""


@dataclass(frozen=True)
class PublishRequest:
    """Publish a state (ADAPTER.md, `publish`)."""

    chain: Path
    state: State
    version: int | None = None
    full: bool = False
    order: str = "natural"
    values: str | None = None
    annotations: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, Path] = field(default_factory=dict)
    key: bytes | None = None
    """An Ed25519 secret key of 32 bytes to sign with."""


@dataclass(frozen=True)
class ShortcutRequest:
    """Create a shortcut (ADAPTER.md, `shortcut`). `start` None: a full one."""

    chain: Path
    start: int | None
    to: int
    tag: str | None = None
    order: str = "natural"


@dataclass(frozen=True)
class CollectRequest:
    """Delete what the versions of `keep` do not need (ADAPTER.md, `collect`); `grace` in seconds."""

    chain: Path
    keep: tuple[int, ...]
    grace: float


Reader = Callable[[ReadRequest], Any]
Verify = Callable[[Path], Iterable[Any]]
Publish = Callable[[PublishRequest], Any]
Shortcut = Callable[[ShortcutRequest], Any]
Collect = Callable[[CollectRequest], Any]
Handle = Callable[[dict[str, Any]], Mapping[str, Any]]


def _crash(error: BaseException) -> AdapterError:
    lines = traceback.format_exception(error)
    return AdapterError(f"{type(error).__name__}: {error}", "".join(lines[-12:]))


class HandlerAdapter(Adapter):
    """A function that takes the requests of ADAPTER.md as dicts and returns the answers as dicts.

    A `restart` attribute of the function, if there is one, is called to make it hold nothing.
    """

    form = "in Python"

    def __init__(self, handle: Handle) -> None:
        self._handle = handle
        self._next = 0

    def hello(self, timeout: float) -> Hello:
        return parse_hello(self.call("hello", {"protocol": PROTOCOL}, timeout))

    def call(self, op: str, members: Mapping[str, Any], timeout: float) -> Answer:
        number, self._next = self._next, self._next + 1
        try:
            answer = self._handle({"id": number, "op": op, **copy.deepcopy(dict(members))})
        except Exception as error:
            raise _crash(error) from error
        if not isinstance(answer, Mapping):
            raise AdapterError(f"the answer is a {type(answer).__name__}, no mapping")
        if answer.get("id") != number:
            raise AdapterError(f"the answer to request {number} has the id {answer.get('id')!r}")
        return parse_answer(answer)

    def restart(self) -> None:
        restart = getattr(self._handle, "restart", None)
        if callable(restart):
            restart()


def _writable(state: State) -> State:
    return {name: Tensor(tensor.dtype, tensor.shape, bytearray(tensor.data)) for name, tensor in state.items()}


class FunctionAdapter(Adapter):
    """Functions that read, verify or write, as an adapter. What is held goes in and comes back with each call."""

    holds = False
    form = "in Python"

    def __init__(
        self,
        hello: Hello,
        *,
        read: Reader | None = None,
        verify: Verify | None = None,
        publish: Publish | None = None,
        shortcut: Shortcut | None = None,
        collect: Collect | None = None,
    ) -> None:
        self._hello = hello
        self._read, self._verify = read, verify
        self._publish, self._shortcut, self._collect = publish, shortcut, collect

    def hello(self, timeout: float) -> Hello:
        return self._hello

    def call(self, op: str, members: Mapping[str, Any], timeout: float) -> Answer:
        handlers: dict[str, Callable[[Mapping[str, Any]], Answer]] = {
            "read": self._call_read,
            "verify": self._call_verify,
            "publish": self._call_publish,
            "shortcut": self._call_shortcut,
            "collect": self._call_collect,
        }
        if op not in handlers:
            return Declined(f"{op} cannot be asked of a function")
        try:
            return handlers[op](members)
        except Rejected as rejected:
            return Refused(rejected.error, rejected.object, rejected.rule, rejected.message or None)
        except Unsupported as unsupported:
            return Declined(str(unsupported))
        except (AdapterError, KeyboardInterrupt):
            raise
        except Exception as error:
            raise _crash(error) from error

    def _call_read(self, members: Mapping[str, Any]) -> Answer:
        if self._read is None:
            return Declined("no function reads")
        if "holders" in members:
            return Declined("a function has no holders")
        held: Held | None = None
        if members["held"] is not None:
            held = Held(_writable(read_state(Path(members["held"]["state"]))), members["held"]["version"])
        tensors = members.get("tensors")
        request = ReadRequest(
            chain=members["chain"] if "://" in members["chain"] else Path(members["chain"]),
            to=members["to"],
            held=held,
            tensors=None if tensors is None else tuple(tensors),
            memory=members.get("memory"),
            sources=tuple(members.get("sources", ())),
            places=tuple(map(Path, members.get("places", ()))),
            pin=members.get("pin"),
            keys=tuple(map(bytes.fromhex, members.get("keys", ()))),
            threshold=members.get("threshold", 1),
            back=members.get("back", False),
        )
        out = Path(members["out"])
        try:
            result = self._read(request)
        except (Rejected, Unsupported) as refusal:
            left = getattr(refusal, "state", _NOTHING)
            if left is not _NOTHING:
                _write(out, left)
            elif held is not None:
                _write(out, held.state)
            raise
        if result is None:
            raise AdapterError("the reader returned None, not the state that it holds now")
        _write(out, result)
        return Done({"ok": True})

    def _call_verify(self, members: Mapping[str, Any]) -> Answer:
        if self._verify is None:
            return Declined("no function verifies")
        faults = []
        for fault in self._verify(Path(members["chain"])):
            if isinstance(fault, Mapping):
                faults.append(dict(fault))
            elif isinstance(fault, tuple) and len(fault) == 2:
                faults.append({"error": fault[0], "object": fault[1]})
            else:
                faults.append({"error": getattr(fault, "error", None), "object": getattr(fault, "object", None)})
        return Done({"ok": True, "faults": faults})

    def _call_publish(self, members: Mapping[str, Any]) -> Answer:
        if self._publish is None:
            return Declined("no function publishes")
        key = members.get("key")
        version = self._publish(
            PublishRequest(
                chain=Path(members["chain"]),
                state=_writable(read_state(Path(members["state"]))),
                version=members.get("version"),
                full=members.get("full", False),
                order=members.get("order", "natural"),
                values=members.get("values"),
                annotations=members.get("annotations", {}),
                files={name: Path(path) for name, path in members.get("files", {}).items()},
                key=None if key is None else bytes.fromhex(key),
            )
        )
        return Done({"ok": True, "version": version})

    def _call_shortcut(self, members: Mapping[str, Any]) -> Answer:
        if self._shortcut is None:
            return Declined("no function makes shortcuts")
        self._shortcut(
            ShortcutRequest(
                chain=Path(members["chain"]),
                start=members["from"],
                to=members["to"],
                tag=members.get("tag"),
                order=members.get("order", "natural"),
            )
        )
        return Done({"ok": True})

    def _call_collect(self, members: Mapping[str, Any]) -> Answer:
        if self._collect is None:
            return Declined("no function collects")
        self._collect(CollectRequest(Path(members["chain"]), tuple(members["keep"]), members["grace"]))
        return Done({"ok": True})


def _write(out: Path, state: object) -> None:
    """Put down what is held now; nothing is no file."""
    if state is None:
        return
    try:
        out.write_bytes(encode_state(as_state(state)))
    except StateError as error:
        raise AdapterError(f"what the reader holds is no state: {error}") from error


def introduce(
    function: object,
    role: str,
    *,
    levels: Iterable[str],
    capabilities: Iterable[str],
    name: str | None,
    version: str,
) -> Hello:
    """Who a function is. Raises ValueError for a capability that does not exist."""
    claimed = tuple(capabilities)
    unknown = sorted(set(claimed) - set(CAPABILITIES))
    if unknown:
        raise ValueError(f"there is no capability {', '.join(unknown)}; there are {', '.join(CAPABILITIES)}")
    return Hello(
        name=name or str(getattr(function, "__qualname__", type(function).__name__)),
        version=version,
        spec=SPEC_VERSION,
        roles=(role,),
        levels=tuple(levels),
        capabilities=claimed,
    )
