"""The programs of the project, `python -m scripts.NAME --help`: config in, wiring, run."""
