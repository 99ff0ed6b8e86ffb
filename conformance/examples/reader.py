"""A reader of tensordelta chains in 65 lines, and the suite's verdict on it: `python conformance/examples/reader.py`.

It reads sound chains and trusts them: of all that SPEC.md has a reader refuse it looks at little more than digests.
"""

import hashlib
import json
import resource
import sys
from math import prod

import numpy as np

from tensordelta_conformance import Rejected, check_reader

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

BITS = {"F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "BF16": 16, "F16": 16, "I16": 16, "U16": 16, "F32": 32, "I32": 32}
BITS |= {"U32": 32, "F64": 64, "C64": 64, "I64": 64, "U64": 64}  # the others have 8


def kind(dtype):
    return np.dtype(f"<u{max(BITS.get(dtype, 8) // 8, 1)}")


def stored(root, name, digest=None):
    if not (root / name).is_file():
        raise Rejected("missing", name)
    data = (root / name).read_bytes()
    if digest and hashlib.sha256(data).hexdigest() != digest:
        raise Rejected("integrity", name)
    return data


def planes(streams, name, dtype):
    return np.stack([streams[f"{name}.{plane}"] for plane in range(dtype.itemsize)], 1).reshape(-1).view(dtype)


def decode(chunk, streams, base):
    """The words of a chunk's space, from those of the base (SPEC.md section 7)."""
    codec, m = chunk["positions"]["codec"], chunk["changed"]
    if chunk["order"]["codec"] != "natural":
        raise Rejected("unsupported", "order")
    if codec == "bitmap":
        at = np.flatnonzero(np.unpackbits(streams["bitmap"], bitorder="little")[: len(base)])
    elif codec == "gap":
        gaps, shift = streams["gaps"], chunk["positions"]["shift"]
        gap = np.diff(np.cumsum(gaps, dtype=np.int64)[gaps < 255], prepend=0) << shift
        low = streams["low"] if shift else np.zeros(m, np.uint8)
        at = np.cumsum((gap | (np.stack([low & 15, low >> 4], 1).ravel()[:m] if shift == 4 else low)) + 1) - 1
    at, new = np.arange(m) if codec == "all" else at, base.copy()
    if chunk["values"]["codec"] == "replace":
        new[at] = planes(streams, "values", base.dtype)
        return new
    y = np.stack([streams["codes"] >> s & 3 for s in (0, 2, 4, 6)], 1).ravel()[:m].astype(base.dtype)
    if (y == 3).any():
        y[y == 3] += planes(streams, "escapes", base.dtype)
    new[at] += ((y + base.dtype.type(1)) >> 1) ^ (0 - (~y & base.dtype.type(1)))
    return new


def apply(root, manifest, held):
    """The state to which a manifest leads (sections 5 and 6)."""
    tensors = json.loads(stored(root, f"layouts/{manifest['layout']}.json", manifest["layout"]))["tensors"]
    state = {}
    for name, dtype, shape in ((each["name"], each["dtype"], tuple(each["shape"])) for each in tensors):
        same = manifest["base"] and name in held and held[name][:2] == (dtype, shape)
        words = np.zeros(prod(shape) * BITS.get(dtype, 8) // (8 * kind(dtype).itemsize), kind(dtype))
        state[name] = (dtype, shape, held[name][2].copy() if same else words)
    for data, content in ((stored(root, pack["path"], pack["sha256"]), pack["content"]) for pack in manifest["packs"]):
        start = 8 + int.from_bytes(data[:8], "little")
        header = json.loads(data[8:start])
        metadata = header.pop("__metadata__", {})
        parts = {name: data[slice(*(start + at for at in each["data_offsets"]))] for name, each in header.items()}
        for name in state.keys() & parts if content == "tensors" else ():
            state[name][2][:] = np.frombuffer(parts[name], state[name][2].dtype)
        for number, chunk in enumerate(json.loads(metadata["tensordelta"])["chunks"] if content == "chunks" else ()):
            slices = [state[tensors[tensor]["name"]][2][first:last] for tensor, first, last in chunk["slices"]]
            unpack = zstd.decompress if chunk["compression"] == "zstd" else bytes
            own = [(name, parts[name]) for name in parts if name.split(".")[0] == str(number)]
            streams = {name.split(".", 1)[1]: np.frombuffer(unpack(data), np.uint8) for name, data in own}
            words = decode(chunk, streams, np.concatenate(slices))
            for each, end in zip(slices, np.cumsum([len(each) for each in slices]), strict=True):
                each[:] = words[end - len(each) : end]
    return state


def load(root, version, held):
    """The state of a version: that which is held, or over its manifest from its base."""
    if held and held.version == version:
        tensors = held.state.items()
        return {name: (each.dtype, each.shape, np.frombuffer(each.data, kind(each.dtype))) for name, each in tensors}
    manifest = json.loads(stored(root, f"manifests/{version:012}.json"))
    return apply(root, manifest, load(root, manifest["base"]["version"], held) if manifest["base"] else {})


def read(request):
    """Bring what is held to a version of a chain: what the suite calls."""
    versions = [int(path.stem) for path in (request.chain / "manifests").glob("*.json")]
    state = load(request.chain, max(versions) if request.to is None else request.to, request.held)
    return {name: (dtype, shape, words.tobytes()) for name, (dtype, shape, words) in state.items()}


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))  # a few bytes can ask a trusting reader for any memory
    report = check_reader(read, levels=["reader-core"], name="the reader of the example")
    sound = [check for check in report.checks if check.case.valid and check.status != "not-applicable"]
    print(f"{sum(check.status == 'pass' for check in sound)} of {len(sound)} sound chains are read as they should be")
    print(report.verdict)
