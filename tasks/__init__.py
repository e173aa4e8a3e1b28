"""How one step happens: one verb per file, plain functions. DVC stages also run as `python -m tasks.<verb> MODEL`."""
