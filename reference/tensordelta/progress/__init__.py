"""What is being worked on, and how much of it is done: the library says it, a `View` shows it.

The command line shows it with rich, a notebook with tqdm. In a script:

    >>> from tensordelta.progress import Bar
    >>> with Bar():                                                          # doctest: +SKIP
    ...     chain.publish("step_0.safetensors")
"""

from .bar import Bar
from .phases import Phase, View, current, is_seen, phase

__all__ = ["Bar", "Phase", "View", "current", "is_seen", "phase"]
