"""The conformance suite of tensordelta: proves that a reader, verifier or writer speaks the format of SPEC.md.

From a shell, against a program that speaks the adapter protocol (ADAPTER.md):

    tensordelta-conformance run --adapter "my-engine-adapter"

From Python, against a function:

    from tensordelta_conformance import Rejected, check_reader

    check_reader(my_read, levels=["reader-core"]).raise_for_failures()
"""

from .api import check_reader, check_verifier, check_writer, run, run_handler
from .case import Case, CaseError
from .inprocess import CollectRequest, Held, PublishRequest, ReadRequest, Rejected, ShortcutRequest, Unsupported
from .known import KnownFailure, KnownFailuresError
from .names import ERRORS, LEVELS, SPEC_VERSION, SUITE_VERSION
from .protocol import AdapterError
from .reports import write_reports
from .results import Check, NonConformance, Report
from .state import StateError, Tensor, encode_state, parse_state, read_state
from .suite import Suite, SuiteError

__version__ = SUITE_VERSION

__all__ = [
    "ERRORS",
    "LEVELS",
    "SPEC_VERSION",
    "AdapterError",
    "Case",
    "CaseError",
    "Check",
    "CollectRequest",
    "Held",
    "KnownFailure",
    "KnownFailuresError",
    "NonConformance",
    "PublishRequest",
    "ReadRequest",
    "Rejected",
    "Report",
    "ShortcutRequest",
    "StateError",
    "Suite",
    "SuiteError",
    "Tensor",
    "Unsupported",
    "check_reader",
    "check_verifier",
    "check_writer",
    "encode_state",
    "parse_state",
    "read_state",
    "run",
    "run_handler",
    "write_reports",
]
