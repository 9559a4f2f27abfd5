"""nanochat for HPC: train your own chat model, from a laptop CPU to a Slurm cluster.

A library of small modules; the programs are in `scripts/` (`python -m scripts.base_train --help`).
Importing this package imports nothing else, above all not torch.
"""

__version__ = "0.1.0"
