"""Fuzzing: one target for each parser of the package, which takes bytes of any kind and may only say what is wrong.

`python -m tests.fuzz TARGET|all --seconds N` fuzzes, guided by coverage where atheris is installed; the tests beside it
run every target on its corpus and on what hypothesis makes of it.
"""
