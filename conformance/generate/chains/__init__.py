"""Good chains, each registered under its name when its module is imported; `generate.good` has them all."""
