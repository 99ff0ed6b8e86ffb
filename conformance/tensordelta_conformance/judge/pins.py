"""Pins, which keep versions from collectors (SPEC.md section 13)."""

from __future__ import annotations

import time

from ..small_reader.documents import manifest_name, parse_pin
from ..small_reader.rejection import Rejection
from .case import Case


def check_pins(case: Case) -> None:
    """TD-RET-007 and TD-RET-018: the versions that were dropped, against the pins that were there before the step."""
    dropped = sorted(set(case.before.versions()) - set(case.now.versions()))
    names = pinned(case)
    for version in dropped:
        if version in names:
            case.findings.add("TD-RET-007", manifest_name(version), f"{names[version]} names it, and it is gone")
    for name, fault in _broken(case).items():
        if dropped:
            message = f"it was dropped while {name} breaks a rule ({fault.name}): {fault.reason}"
            case.findings.add("TD-RET-018", manifest_name(dropped[0]), message)


def pinned(case: Case) -> dict[int, str]:
    """The versions that have to stay for a pin, each with the name of one.

    A pin that has not expired by now had not when the step was done.
    """
    try:
        own = case.chain.id()
    except Rejection:
        return {}  # pins of which chain are meant cannot be told; that chain.json is gone is told elsewhere
    found = {}
    for name, data in case.before.pins.items():
        try:
            chain, version, seconds = parse_pin(data)
        except Rejection:
            continue
        age = time.time() - case.before.objects[name].modified / 1e9
        if chain == own and (seconds is None or age < seconds):
            found[version] = name
    return found


def _broken(case: Case) -> dict[str, Rejection]:
    """The pins that break a rule and are younger than the grace period, by name."""
    grace = float(case.request.get("grace", 24 * 3600))
    found = {}
    for name, data in sorted(case.before.pins.items()):
        try:
            parse_pin(data)
        except Rejection as fault:
            if time.time() - case.before.objects[name].modified / 1e9 < grace:
                found[name] = fault
    return found
