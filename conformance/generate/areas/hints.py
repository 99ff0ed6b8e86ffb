"""The hint `latest.json` (SPEC.md section 4.11), and fingerprints objects (section 4.12)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from generate.builder import Builder, digest, dumps, manifest_name
from generate.cases import read
from generate.chains.contents import no_tensor_fingerprints
from generate.model import CHAIN, FOREIGN
from generate.spoiled import bad, good
from generate.standard import flipped, replaced, standard

AREA = "objects"


_bad = partial(bad, AREA)
_good = partial(good, AREA)


def _hint(**members: Any) -> Callable[[Builder], Any]:
    document = {"tensordelta": "1.0", "chain": CHAIN, "version": 1} | members
    return lambda builder: builder.put("latest.json", dumps(document))


for _slug, _rule, _title, _after in (
    ("hint-that-is-right", "TD-OBJ-007", "`latest.json` names the newest version", _hint()),
    ("hint-too-low", "TD-OBJ-007", "`latest.json` names version 0, where version 1 exists", _hint(version=0)),
    ("hint-too-high", "TD-OBJ-019", "`latest.json` names version 7, which has no manifest", _hint(version=7)),
    ("hint-of-another-chain", "TD-OBJ-018", "`latest.json` names another chain", _hint(chain=FOREIGN, version=0)),
    ("hint-of-format-2", "TD-OBJ-018", "`latest.json` has format 2.0", _hint(tensordelta="2.0", version=0)),
    ("hint-with-a-string", "TD-OBJ-018", "`latest.json` has its version as a string", _hint(version="0")),
    (
        "hint-that-is-garbage",
        "TD-OBJ-018",
        "`latest.json` is no JSON, and no UTF-8 either",
        lambda b: b.put("latest.json", b"\xff\xfe not JSON"),
    ),
    (
        "hint-of-65537-bytes",
        "TD-OBJ-018",
        "`latest.json` is too long",
        lambda b: b.put("latest.json", dumps({"tensordelta": "1.0", "chain": CHAIN, "version": 0}) + b" " * 65500),
    ),
):
    read(
        _slug,
        area=AREA,
        title=_title,
        requirements=[_rule],
        chain=partial(standard, last=False, after=_after),
        to=None,
        verify=True if _slug == "hint-that-is-right" else None,
    )


def _sums(how: Callable[[bytes], bytes], *, named: bool = True) -> Callable[[Builder], None]:
    """Change version 1's fingerprints object; with `named`, name it by its new digest."""

    def change(builder: Builder) -> None:
        old = builder.manifests[1]["tensor_fingerprints"]
        data = how(builder.get(f"fingerprints/{old}.bin"))
        if not named:
            builder.put(f"fingerprints/{old}.bin", data)
            return
        builder.remove(f"fingerprints/{old}.bin")
        builder.put(f"fingerprints/{digest(data)}.bin", data)
        builder.change(manifest_name(1), replaced(old.encode(), digest(data).encode()))

    return change


def _unseen(
    slug: str, rule: str | Sequence[str], title: str, error: str, after: Callable[[Builder], Any], **more: Any
) -> None:
    _bad(slug, rule, title, error, after, role="verifier", **more)


_unseen(
    "fingerprints-altered",
    "TD-FPR-001",
    "A fingerprints object whose digest is not the one that names it",
    "integrity",
    _sums(flipped(0), named=False),
)
_unseen(
    "fingerprints-of-too-few",
    "TD-FPR-002",
    "A fingerprints object with a number less than the layout has tensors, the sum made right",
    "malformed",
    _sums(lambda data: _folded(data)),
)
_unseen(
    "fingerprints-of-too-many",
    "TD-FPR-002",
    "A fingerprints object with a zero more than the layout has tensors",
    "malformed",
    _sums(lambda data: data + bytes(8)),
)
_unseen(
    "fingerprints-sum-wrong",
    ["TD-FPR-005", "TD-FPR-003"],
    "A fingerprints object whose sum is not the manifest's fingerprint",
    "integrity",
    _sums(flipped(9)),
)
_unseen(
    "fingerprints-missing",
    "TD-ERR-002",
    "A fingerprints object that a manifest names and that does not exist",
    "missing",
    lambda b: b.remove(f"fingerprints/{b.manifests[1]['tensor_fingerprints']}.bin"),
)


def _folded(data: bytes) -> bytes:
    """The last two numbers as one."""
    last = sum(int.from_bytes(data[at : at + 8], "little") for at in (len(data) - 16, len(data) - 8))
    return data[:-16] + (last % 2**64).to_bytes(8, "little")


read(
    "fingerprints-absent",
    area=AREA,
    title="Manifests without `tensor_fingerprints`",
    requirements=["TD-MAN-001"],
    chain=no_tensor_fingerprints,
    to=2,
    held=1,
)
