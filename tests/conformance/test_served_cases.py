"""Cases whose chain, or sources, the runner serves over HTTP: what it notices."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

from tensordelta_conformance import run_handler
from tensordelta_conformance.small_reader.adapter import Adapter, Answer
from tensordelta_conformance.small_reader.rejection import Rejection

PLAIN = "follow-to-the-hinted-version"
REFUSED = "follow-a-target-that-is-refused"


class Meddling(Adapter):
    """A reader that asks the server for something else first."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self._name = name

    def read(self, request: Mapping[str, Any]) -> Answer:
        try:
            with urlopen(f"{request['chain']}/{self._name}"):
                pass
        except HTTPError as error:
            error.close()
        return super().read(request)


class Trusting(Adapter):
    """A reader that takes every failure for an absence."""

    def read(self, request: Mapping[str, Any]) -> Answer:
        try:
            return super().read(request)
        except OSError as error:
            raise Rejection("missing", "none", str(error)) from None


def test_a_reader_that_follows_passes() -> None:
    report = run_handler(Adapter(), only=["follow/*", "security/*"], levels=["follow", "sources"])
    assert report.failures == [] and {check.status for check in report.checks} == {"pass"}


def test_asking_for_what_nothing_names_is_a_failure() -> None:
    for name in ("manifests/", "manifests/000000000009.json", "?list-type=2"):
        (check,) = run_handler(Meddling(name), only=[PLAIN], levels=["follow"]).by_id(PLAIN)
        assert check.status == "fail" and f"asked for {name}" in check.got


def test_asking_twice_for_what_is_there_is_none() -> None:
    (check,) = run_handler(Meddling("latest.json"), only=[PLAIN], levels=["follow"]).by_id(PLAIN)
    assert check.status == "pass"


def test_a_failure_of_the_store_is_no_rejection() -> None:
    (check,) = run_handler(Trusting(), only=[REFUSED], levels=["follow"]).by_id(REFUSED)
    assert check.status == "fail"
    assert check.expected.startswith("failed, without a rejection") and check.got == "rejected as missing"
