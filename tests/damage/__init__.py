"""The damage campaign: chains and readers' files are damaged in many ways, and nothing wrong may come of it.

`python -m tests.damage --count 20000 --seed 1` runs it, and prints a table of what was damaged and what came of it.
"""
