"""What the judge finds, and how a Reader's rejection becomes the Writer's fault."""

from __future__ import annotations

from dataclasses import dataclass

from ..small_reader.rejection import Rejection

PROTOCOL = "ADAPTER.md"
"""Stands in place of a requirement's id where an adapter does not do what the protocol asks."""


@dataclass(frozen=True)
class Violation:
    """A rule that a Writer broke.

    Attributes:
        requirement: its id in SPEC.md; `ADAPTER.md` where the adapter broke the protocol instead.
        object: name of the object at fault under the root; empty for the chain as a whole.
        message: what is wrong, in words.
        must: False for a SHOULD.
    """

    requirement: str
    object: str
    message: str
    must: bool = True


BLAME = {
    "TD-FPR-010": ["TD-OBJ-012"],
    "TD-LAY-003": ["TD-LIM-006"],
    "TD-LAY-007": ["TD-LIM-006"],
    "TD-LAY-009": ["TD-OBJ-012"],
    "TD-JSN-008": ["TD-LIM-006"],
    "TD-JSN-010": ["TD-LIM-006"],
    "TD-LIM-001": ["TD-LIM-006"],
    "TD-LIM-004": ["TD-LIM-006"],
    "TD-CHK-016": ["TD-LIM-006"],
    "TD-CHK-024": ["TD-CHK-025"],
    "TD-ORD-005": ["TD-LIM-006"],
    "TD-PTH-002": ["TD-LIM-006"],
    "TD-PCK-002": ["TD-LIM-006"],
    "TD-OBJ-004": ["TD-OBJ-002"],
    "TD-OBJ-005": ["TD-OBJ-002"],
    "TD-OBJ-009": ["TD-OBJ-016"],
    "TD-MAN-006": ["TD-VER-004"],
    "TD-MAN-014": ["TD-OBJ-012"],
    "TD-MAN-019": ["TD-CHK-018"],
    "TD-MAN-024": ["TD-MAN-026"],
    "TD-MAN-025": ["TD-MAN-027"],
    "TD-MAN-029": ["TD-OBJ-012"],
    "TD-RDR-003": ["TD-MAN-008"],
    "TD-RDR-004": ["TD-MAN-008"],
    "TD-RTE-002": ["TD-MAN-008"],
    "TD-VER-002": ["TD-VER-005"],
    "TD-ZST-001": ["TD-ZST-012"],
    "TD-ZST-002": ["TD-ZST-012"],
    "TD-ZST-005": ["TD-ZST-012"],
    "TD-ZST-006": ["TD-ZST-012"],
    "TD-ZST-008": ["TD-LIM-006"],
}
"""Reader's rule -> the requirements of a Writer that an object breaks as well by which the rule is broken."""


class Findings:
    """The violations found so far, each once."""

    def __init__(self) -> None:
        self.violations: list[Violation] = []

    def add(self, requirement: str, object: str, message: str, *, must: bool = True) -> None:
        """Adds a violation."""
        found = Violation(requirement, object, message, must)
        if found not in self.violations:
            self.violations.append(found)

    def fault(self, fault: Rejection, object: str) -> None:
        """Adds what a Reader rejects.

        Args:
            object: the object that was read, where the fault names none.
        """
        where = fault.object or object
        for requirement in BLAME.get(fault.rule, []):
            self.add(requirement, where, fault.reason)
        message = f"a Reader has to reject it ({fault.name}, {fault.rule}): {fault.reason}"
        self.add("TD-WRT-004", where, message)
