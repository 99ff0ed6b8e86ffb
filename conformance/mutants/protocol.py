"""The two forms of ADAPTER.md for the adapters of this folder, and safetensors files of states."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from .codecs import WORD, open_file
from .documents import DTYPES, Rejection, Tensor
from .reader import State, scan

import numpy as np  # isort: skip

Answer = dict[str, Any]


def serve(handle: Callable[[Mapping[str, Any]], Answer], arguments: Sequence[str]) -> int:
    """Answer requests line by line, or the one request that the arguments are."""
    if arguments:
        operation, request = arguments
        reply = answer(handle, {"op": operation, **json.loads(request)})
        print(json.dumps(reply), flush=True)
        return 0 if "ok" in reply else 1 if "error" in reply else 3
    for line in sys.stdin:
        print(json.dumps(answer(handle, json.loads(line))), flush=True)
    return 0


def answer(handle: Callable[[Mapping[str, Any]], Answer], request: Mapping[str, Any]) -> Answer:
    """The answer to a request, which `handle` gives or raises."""
    number = {"id": request["id"]} if "id" in request else {}
    try:
        return {**number, "ok": True, **handle(request)}
    except Rejection as fault:
        return {**number, "error": fault.error, "object": fault.object, "message": str(fault)}
    except NotImplementedError as fault:
        return {**number, "unsupported": str(fault)}


def read_state(path: str) -> State:
    """The state in a safetensors file, scanned."""
    header, buffer = open_file(Path(path).read_bytes())
    header.pop("__metadata__", None)
    layout, words = [], []
    for name in sorted(header, key=str.encode):
        entry = header[name]
        tensor = Tensor(name, entry["dtype"], tuple(int(each.literal) for each in entry["shape"]))
        begin, end = (int(each.literal) for each in entry["data_offsets"])
        layout.append(tensor)
        words.append(np.frombuffer(bytearray(buffer[begin:end]), WORD[DTYPES[tensor.dtype].w]))
    return scan(layout, words)


def write_state(path: str, state: State) -> None:
    """Write a state as a safetensors file."""
    header, at = {}, 0
    for tensor in state.layout:
        offsets = [at, at + tensor.size]
        header[tensor.name] = {"dtype": tensor.dtype, "shape": list(tensor.shape), "data_offsets": offsets}
        at += tensor.size
    raw = json.dumps(header).encode()
    with Path(path).open("wb") as file:
        file.write(len(raw).to_bytes(8, "little") + raw)
        for words in state.words:
            file.write(words.tobytes())
