"""`python -m tensordelta_conformance.small_reader [OP REQUEST]`: the adapter of the small reader."""

import sys

from .adapter import Adapter, serve

sys.exit(serve(Adapter(), sys.argv[1:]))
