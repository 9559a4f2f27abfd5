"""A run as Slurm jobs: site files, plan, batch text, submission, the body of every job, ledger, status.

What it is: the way of a run from one command to its report on a cluster, without torch. What it is not:
training (a job's body starts the same scripts as a laptop does). Run: `python -m scripts.launch plan --site
lab`.
"""
