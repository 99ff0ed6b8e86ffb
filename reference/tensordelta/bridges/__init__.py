"""Bridges: chains from and to the weight deltas that other projects write and read (SPEC.md appendix C).

    importer = td.bridges.Importer(
        td.bridges.new_format("slime"), td.FolderStore("deltas"), lambda create: td.open("run", create=create),
        base=Path("model"),
    )
    for imported in importer.all():
        print(imported.id, imported.published.version)

Each format is a module. An import proves of each version what the format lets one prove, before it publishes it; an
export reads back what it wrote, before it is visible. `watching` publishes a folder that gets a checkpoint per version.
"""

from __future__ import annotations

from typing import Any

from .exporting import Exported, Exporter
from .format import Format
from .importing import Imported, Importer, is_chain
from .modelexpress import ModelExpress
from .skyrl import SkyRL
from .slime import Slime
from .trl import TRL
from .watching import Watched, Watcher

__all__ = [
    "FORMATS",
    "Exported",
    "Exporter",
    "Format",
    "Imported",
    "Importer",
    "Watched",
    "Watcher",
    "is_chain",
    "new_format",
]

#: The formats by name, and the options of `new_format` that each takes for writing.
FORMATS: dict[str, tuple[type, tuple[str, ...]]] = {
    "trl": (TRL, ("encoding", "full_every")),
    "slime": (Slime, ("encoding", "checksum", "full_every")),
    "modelexpress": (ModelExpress, ()),
    "skyrl": (SkyRL, ()),
}


def new_format(name: str, **options: Any) -> Format:
    """A format by its name.

    Args:
        name: one of `FORMATS`.
        options: how it is written; those that are None are left out.

    Raises:
        ValueError: no such format, or an option that it does not have.
    """
    if name not in FORMATS:
        raise ValueError(f"{name!r} is no format that is known: {', '.join(FORMATS)}")
    kind, known = FORMATS[name]
    given = {key: value for key, value in options.items() if value is not None}
    unknown = sorted(given.keys() - set(known))
    if unknown:
        raise ValueError(f"the format {name} has no option {unknown[0].replace('_', '-')!r}")
    found: Format = kind(**given)
    return found
