"""The small objects: chain, hint, pin and signature (SPEC.md sections 4.5, 4.11, 13 and 14); layouts (section 4.6)."""

from __future__ import annotations

import hashlib

from .faults import need
from .fields import DIGEST, TIME, UUID, array, document, integer, mapping, required, string, string_map, version_number
from .model import DTYPES, Layout

SMALL = 65536
LARGEST_LAYOUT = 268435456
SIGNATURE = "[A-Za-z0-9+/]{86}=="


def parse_chain(data: bytes) -> str:
    """The chain id of `chain.json`."""
    value = document(data, SMALL)
    chain, created = required(value, "chain", "created")
    string(created, TIME)
    if "annotations" in value:
        string_map(value["annotations"])
    return string(chain, UUID)


def parse_latest(data: bytes) -> tuple[str, int]:
    """The chain id and the version that `latest.json` names."""
    value = document(data, SMALL)
    chain, version = required(value, "chain", "version")
    return string(chain, UUID), version_number(version)


def parse_pin(data: bytes) -> tuple[str, int, int | None]:
    """The chain id and the version that a pin names, and for how many seconds it holds; None: for ever."""
    value = document(data, SMALL)
    chain, version = required(value, "chain", "version")
    seconds = integer(value["seconds"]) if "seconds" in value else None
    return string(chain, UUID), version_number(version), seconds


def parse_signature(data: bytes) -> tuple[str, str]:
    """Key id and signature (base64) of a signature object."""
    value = document(data, SMALL)
    keyid, sig = required(value, "keyid", "sig")
    return string(keyid), string(sig, SIGNATURE)


def parse_layout(data: bytes, digest: str) -> Layout:
    """The tensors of a layout object, which was named by a digest."""
    need(len(data) <= LARGEST_LAYOUT, "TD-LIM-004", f"{len(data)} bytes", "limit")
    string(digest, DIGEST)
    need(hashlib.sha256(data).hexdigest() == digest, "TD-LAY-008", "the layout's digest differs", "integrity")
    value = document(data, LARGEST_LAYOUT)
    entries = array(*required(value, "tensors"))
    need(len(entries) <= 2**20, "TD-LIM-004", "more than 2^20 tensors", "limit")
    layout: Layout = []
    for entry in entries:
        name, dtype, shape = required(mapping(entry), "name", "dtype", "shape")
        string(name)
        need(1 <= len(name.encode()) <= 1024, "TD-LAY-003", f"a name of {len(name.encode())} bytes")
        need(name != "__metadata__", "TD-LAY-004", "a tensor named __metadata__")
        string(dtype)
        sizes = tuple(integer(size) for size in array(shape))
        need(dtype in DTYPES, "TD-WRD-004", f"the dtype {dtype!r}", "unsupported")
        need(len(sizes) <= 16, "TD-LIM-004", "more than 16 dimensions", "limit")
        product = 1
        for size in sizes:
            need(size <= 2**48, "TD-LIM-004", "a dimension greater than 2^48", "limit")
            product *= size if size != 0 else 1
            need(product <= 2**48, "TD-LAY-007", "more than 2^48 elements", "limit")
        elements = 0 if 0 in sizes else product
        need(elements * DTYPES[dtype].bits % 8 == 0, "TD-WRD-005", f"{name!r} does not fill whole bytes")
        need(not layout or layout[-1][0].encode() < name.encode(), "TD-LAY-002", "names are not ascending")
        layout.append((name, dtype, sizes))
    return layout
