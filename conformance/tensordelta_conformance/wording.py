"""Expectations and answers as a person reads them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from .case import Case, Expectation, Fault, HugeState, StateRef, Step
from .fingerprint import state_fingerprint
from .names import FAILED
from .protocol import Answer, Declined, Done, Refused, Reported
from .state import StateError, parse_state

DIGEST = re.compile(r"([0-9a-f]{64})(-[0-9a-f]{16})?")


def plain(text: str) -> str:
    """A text with its control characters written out: an adapter may say anything."""
    return "".join(c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in text)


def short_digests(text: str) -> str:
    """A text in which digests, and the salts after them, are cut short."""
    return DIGEST.sub(lambda match: f"{match[0][:8]}…", text)


def listing(words: Iterable[str], last: str = "and") -> str:
    """Words as a list in a sentence."""
    items = list(words)
    if len(items) < 2:
        return "".join(items)
    return f"{', '.join(items[:-1])} {last} {items[-1]}"


def _state(state: StateRef, files: Mapping[str, bytes]) -> str:
    if state is None:
        return "nothing held"
    if isinstance(state, HugeState):
        return f"a state of fingerprint {state.fingerprint} held"
    try:
        fingerprint = state_fingerprint(parse_state(files[state]))
    except (KeyError, StateError):
        return f"the state of {state} held"
    return f"the state of {state} (fingerprint {fingerprint}) held"


def expected_fault(fault: Fault) -> str:
    """A fault that has to be reported."""
    where = f" of {listing(fault.objects, 'or')}" if fault.objects else ""
    return f"{listing(fault.errors, 'or')}{where}"


def refusal(error: str) -> str:
    """A rejection, or a failure of the store."""
    return "failed, without a rejection" if error == FAILED else f"rejected as {error}"


def expected(given: Step, files: Mapping[str, bytes]) -> str:
    """What has to come of a step; `files` are those of its case."""
    if given.race:
        return f"a valid version by one of {len(given.race)} writers at least, a conflict by the others"
    bare = given.expect == Expectation()
    return "a valid version" if bare and given.op == "publish" else expectation(given.expect, files)


def expected_of_case(case: Case, part: str) -> str:
    """What has to come of all steps of a case, or of its `verify`."""
    if part == "verify":
        return expectation(Expectation(faults=case.verify), case.files)
    return "; then ".join(expected(each, case.files) for each in case.steps if each.op is not None)


def expectation(expect: Expectation, files: Mapping[str, bytes]) -> str:
    """What has to come of a request; `files` are those of its case."""
    if expect.alternatives:
        return "; or ".join(expectation(each, files) for each in expect.alternatives)
    if expect.faults is not None:
        return "no fault" if not expect.faults else "reported: " + "; ".join(map(expected_fault, expect.faults))
    parts = []
    if expect.errors:
        parts.append(listing(map(refusal, expect.errors), "or"))
    elif expect.version is not None:
        parts.append(f"version {expect.version}")
    if expect.has_state:
        parts.append(f"{'still ' if expect.errors else ''}{_state(expect.state, files)}")
    elif expect.errors:
        parts.append("still what was held before")
    if expect.files is not None:
        parts.append(f"the files {listing(sorted(expect.files))}" if expect.files else "no other files")
    if expect.memory is not None:
        parts.append(f"at most {expect.memory:,} bytes more memory")
    return ", ".join(parts) or "done"


def answer(given: Answer) -> str:
    """What an adapter answered, without its message."""
    if isinstance(given, Declined):
        return "unsupported"
    if isinstance(given, Refused):
        return refusal(given.error)
    version = given.members.get("version")
    return "done" if version is None else f"version {version}"


def message(given: Answer) -> str:
    """What an adapter says about its answer."""
    if isinstance(given, Declined):
        return given.why
    if isinstance(given, Refused):
        return given.describe() if given.object or given.rule or given.message else ""
    said = given.members.get("message")
    return said if isinstance(said, str) else ""


def reported(faults: Iterable[Reported]) -> str:
    """What a verifier reported."""
    texts = [f"{fault.error} of {fault.object}" if fault.object else fault.error for fault in faults]
    return "reported: " + "; ".join(texts) if texts else "no fault reported"


def _held(members: Mapping[str, object]) -> str:
    if "held" not in members:
        return "going on with what is held"
    held = members["held"]
    if not isinstance(held, Mapping):
        return "holding nothing"
    version = held.get("version")
    return f"holding {held.get('state')}" + (f" as version {version}" if version is not None else "")


def step(given: Step) -> str:
    """What is done in a step."""
    if given.put is not None:
        return f"the objects of {given.put} appear in the chain"
    if given.remove:
        return f"{listing(given.remove)} disappear{'s' if len(given.remove) == 1 else ''} from the chain"
    if given.restart:
        return "the adapter is killed and started anew"
    if given.link:
        return "; ".join(f"{name} becomes a link to {target}" for name, target in given.link.items())
    members = given.input
    target = members.get("to")
    version = "the newest version" if target is None else f"version {target}"
    if given.op in ("read", "prepare"):
        text = f"{given.op} {version}, {_held(members)}"
    elif given.op == "pull":
        text = f"pull {version} into {members.get('dir')}"
    elif given.op == "publish" and given.race:
        text = f"{len(given.race)} writers publish at once: {listing(str(each.get('state')) for each in given.race)}"
    elif given.op == "publish":
        text = f"publish {members.get('state')}"
    elif given.op == "shortcut":
        start = members.get("from")
        text = f"make a shortcut from {'nothing' if start is None else start} to {target}"
    elif given.op == "collect":
        text = f"collect, keeping {members.get('keep')}"
    else:
        text = str(given.op)
    told = {"chain", "held", "to", "dir", "state", "from", "keep"}
    more = [f"{key} {value}" for key, value in members.items() if key not in told]
    if given.serve is not None:
        more.append(f"{given.serve.folder} served over HTTP")
        more += [f"status {status} for {name}" for name, status in given.serve.status.items()]
    if given.kill:
        more.append(f"killed {given.kill} times")
    return f"{text} ({'; '.join(more)})" if more else text


def as_members(given: Answer) -> dict[str, object]:
    """An answer as the members that it had."""
    if isinstance(given, Done):
        return dict(given.members)
    if isinstance(given, Declined):
        return {"unsupported": given.why}
    if given.error == FAILED:
        return {FAILED: given.message}
    return {
        key: value
        for key, value in (
            ("error", given.error),
            ("object", given.object),
            ("rule", given.rule),
            ("message", given.message),
        )
        if value is not None
    }
