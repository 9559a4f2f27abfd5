"""Faults of `toy.py` in the ranks of a real job: this folder on PYTHONPATH, TOY_FAULT says which, SLOW_S
slows each step.

Python imports this file at its start. Only pretraining is touched, and nothing happens without those
variables.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

FAULT, SLOW_S = os.environ.get("TOY_FAULT", ""), os.environ.get("SLOW_S", "")
if (FAULT or SLOW_S) and "scripts.base_train" in sys.orig_argv and "RANK" in os.environ:
    sys.path[:0] = [os.getcwd(), str(Path(__file__).resolve().parent.parent.parent)]
    import toy

    if SLOW_S:
        toy.arm(f"slow:{SLOW_S}::0")
    if FAULT:
        toy.arm(FAULT)
