"""Checking an implementation from Python."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from .inprocess import Collect, FunctionAdapter, Handle, HandlerAdapter, Publish, Reader, Shortcut, Verify, introduce
from .known import KnownFailure, load_known_failures
from .names import ROLES
from .process import LongLived, OneShot
from .protocol import Adapter, Hello
from .results import Report
from .runner import TIMEOUT, OnCheck, Options, chosen_levels, run_suite
from .suite import Suite

Known = Mapping[str, KnownFailure] | Path | str | None


def _suite(suite: Suite | Path | str | None) -> Suite:
    return suite if isinstance(suite, Suite) else Suite.find(None if suite is None else Path(suite))


def _known(known: Known) -> Mapping[str, KnownFailure]:
    if known is None:
        return {}
    return known if isinstance(known, Mapping) else load_known_failures(Path(known))


def run(
    command: str | Sequence[str],
    *,
    levels: Iterable[str] | None = None,
    only: Iterable[str] = (),
    jobs: int = 2,
    timeout: float = TIMEOUT,
    one_shot: bool = False,
    huge: bool = False,
    known_failures: Known = None,
    suite: Suite | Path | str | None = None,
    on_check: OnCheck | None = None,
) -> Report:
    """Run the suite against an adapter that is a program (ADAPTER.md).

    `levels` None: those that it claims. `only`: patterns of case ids. `timeout`: seconds for a request. Raises
    ValueError for a wrong argument (SuiteError, KnownFailuresError are such), and AdapterError for an adapter that does
    not say who it is.
    """
    options = Options(chosen_levels(levels), tuple(only), huge, timeout, jobs, _known(known_failures), str(command))
    return run_suite(_suite(suite), lambda: OneShot(command) if one_shot else LongLived(command), options, on_check)


def run_handler(
    handle: Handle,
    *,
    levels: Iterable[str] | None = None,
    only: Iterable[str] = (),
    huge: bool = False,
    known_failures: Known = None,
    suite: Suite | Path | str | None = None,
) -> Report:
    """Run the suite against a function that takes the requests of ADAPTER.md as dicts and returns the answers as dicts.

    A `restart` attribute of the function is called where the runner would start an adapter anew. Without a process
    nothing can be killed: a function that never returns stops the run. Raises as `run` does.
    """
    return _run_one(HandlerAdapter(handle), levels, only, huge, known_failures, suite)


def check_reader(
    read: Reader,
    *,
    levels: Iterable[str] = ("reader-core",),
    only: Iterable[str] = (),
    capabilities: Iterable[str] = (),
    name: str | None = None,
    version: str = "",
    huge: bool = False,
    known_failures: Known = None,
    suite: Suite | Path | str | None = None,
) -> Report:
    """Run the cases for readers against a function.

    `read` takes a `ReadRequest` and returns the state that it holds afterwards: the path of a safetensors file, the
    bytes of one, or a mapping from names to numpy arrays or (dtype, shape, bytes). It raises `Rejected` for a
    rejection and `Unsupported` for what it does not do; any other exception is an error. After a rejection the state
    held is that of `Rejected(state=…)`, else what the request's `held.state` is then. Raises ValueError for a wrong
    argument.
    """
    hello = _hello(read, "reader", levels, capabilities, name, version)
    return _run_one(FunctionAdapter(hello, read=read), hello.levels, only, huge, known_failures, suite)


def check_verifier(
    verify: Verify,
    *,
    only: Iterable[str] = (),
    name: str | None = None,
    version: str = "",
    huge: bool = False,
    known_failures: Known = None,
    suite: Suite | Path | str | None = None,
) -> Report:
    """Run the cases for verifiers against a function.

    `verify` takes the folder of a chain and returns the faults that it finds, as tuples (error, object name), as
    mappings with these members, or as objects with these attributes. `Rejected` counts as a fault of the object that it
    names. Raises ValueError for a wrong argument.
    """
    hello = _hello(verify, "verifier", ("verifier",), (), name, version)
    return _run_one(FunctionAdapter(hello, verify=verify), hello.levels, only, huge, known_failures, suite)


def check_writer(
    publish: Publish,
    *,
    shortcut: Shortcut | None = None,
    collect: Collect | None = None,
    levels: Iterable[str] = ("writer-core",),
    only: Iterable[str] = (),
    capabilities: Iterable[str] = (),
    name: str | None = None,
    version: str = "",
    huge: bool = False,
    known_failures: Known = None,
    suite: Suite | Path | str | None = None,
) -> Report:
    """Run the cases for writers against functions.

    `publish` takes a `PublishRequest`, publishes, and returns the version; `shortcut` and `collect` take a
    `ShortcutRequest` and a `CollectRequest`, and claim the capabilities of these names. Each raises `Rejected` and
    `Unsupported` as in `check_reader`. What they write is judged by its bytes. Raises ValueError for a wrong argument.
    """
    given = {"shortcut": shortcut, "collect": collect}
    claimed = dict.fromkeys((*capabilities, *(key for key, function in given.items() if function is not None)))
    hello = _hello(publish, "writer", levels, claimed, name, version)
    adapter = FunctionAdapter(hello, publish=publish, shortcut=shortcut, collect=collect)
    return _run_one(adapter, hello.levels, only, huge, known_failures, suite)


def _hello(
    function: object,
    role: str,
    levels: Iterable[str],
    capabilities: Iterable[str],
    name: str | None,
    version: str,
) -> Hello:
    assert role in ROLES
    chosen = chosen_levels(levels)
    assert chosen is not None
    return introduce(function, role, levels=chosen, capabilities=capabilities, name=name, version=version)


def _run_one(
    adapter: Adapter,
    levels: Iterable[str] | None,
    only: Iterable[str],
    huge: bool,
    known: Known,
    suite: Suite | Path | str | None,
) -> Report:
    options = Options(levels=chosen_levels(levels), only=tuple(only), huge=huge, known=_known(known))
    return run_suite(_suite(suite), lambda: adapter, options)
