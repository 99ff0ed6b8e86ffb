"""`python -m tensordelta`."""

from .cli import main

main(prog_name="tensordelta")
