"""What is done to a folder, and what must hold after it was ended; a class for each command."""

from __future__ import annotations

from .background import Background
from .collect import Collect
from .copy import Copy
from .meeting import PublishMeetsOthers, PullMeetsCollector, TwoPulls
from .publish import Publish
from .pull import Pull
from .save import Save
from .scene import Scene
from .shortcut import Shortcut

#: The scenes by the `kind` of their specifications.
SCENES: dict[str, type[Scene]] = {
    "pull": Pull,
    "publish": Publish,
    "background": Background,
    "collect": Collect,
    "copy": Copy,
    "shortcut": Shortcut,
    "save": Save,
    "two pulls": TwoPulls,
    "pull and gc": PullMeetsCollector,
    "publish and others": PublishMeetsOthers,
}
