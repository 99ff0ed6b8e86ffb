"""The closed sets of names: levels, roles, capabilities, errors, and the versions of the suite."""

from __future__ import annotations

SUITE_VERSION = "1.0.0.dev0"
"""Version of this suite, runner and vectors together."""

SPEC_VERSION = "1.0-rc.1"
"""Version of SPEC.md that the vectors follow."""

PROTOCOL = 1
"""Version of the adapter protocol (ADAPTER.md)."""

LEVELS = (
    "reader-core",
    "reader-exponent",
    "chain",
    "follow",
    "partial",
    "slice",
    "sources",
    "verifier",
    "checkout",
    "writer-core",
    "writer-exponent",
    "signed",
)
ROLES = ("reader", "verifier", "writer")
KINDS = ("read", "write", "scenario")
CAPABILITIES = ("prepare", "undo", "memory", "places", "pin", "slice-fit", "slice-part", "shortcut", "collect", "sign")
FLAGS = ("huge", "slow")
OPERATIONS = ("read", "verify", "prepare", "apply", "undo", "pull", "publish", "shortcut", "collect")
WRITING = ("publish", "shortcut", "collect")
"""Operations that may change a chain."""

ERRORS = (
    "malformed",
    "unsupported",
    "limit",
    "integrity",
    "wrong-base",
    "missing",
    "conflict",
    "untrusted",
)
"""SPEC.md section 17; the set is closed."""

FAILED = "failed"
"""What stands among the errors of a case for a failure of the store, which is no rejection."""
