"""All vectors as one file, the same bytes each time."""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from .case import Case
from .names import SUITE_VERSION


def write_archive(cases: Iterable[Case], path: Path) -> str:
    """Write the folders of cases as a .tar.gz, and `path`.sha256 beside it; gives the SHA-256 in hex.

    Names, order, times, owners and modes do not depend on the machine. The gzip stream is that of the zlib in use.
    """
    files = {f"{case.path}/{name}": data for case in cases for name, data in case.files.items()}
    return write_files_archive(
        {f"tensordelta-vectors-{SUITE_VERSION}/{name}": data for name, data in files.items()}, path
    )


def write_files_archive(files: Mapping[str, bytes], path: Path) -> str:
    """Write files, by their paths, as a .tar.gz, and `path`.sha256 beside it; gives the SHA-256 in hex."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, data in sorted(files.items()):
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(data), 0o644
            archive.addfile(entry, io.BytesIO(data))
    packed = gzip.compress(raw.getvalue(), compresslevel=9, mtime=0)
    path.write_bytes(packed)
    digest = hashlib.sha256(packed).hexdigest()
    path.with_name(path.name + ".sha256").write_text(f"{digest}  {path.name}\n", encoding="ascii")
    return digest
