"""A run on a Slurm cluster, from a login node: `python -m scripts.launch COMMAND ...`.

    plan    [OPTIONS]      the jobs as a table, and nothing is submitted; --dry-run: and as a Mermaid graph;
                           --mermaid: only the graph; --texts: the batch scripts
    submit  [OPTIONS]      plan, freeze the code, submit every job
    status  RUN            each stage in words: why it waits, how far it is, how it ended
    logs    RUN [STAGE]    the end of the newest log
    attach  RUN [STAGE]    a shell on the node of a running job
    stop    RUN            end cleanly: nothing new begins, what trains saves and stops
    cancel  RUN            end now, from the chain's end
    resume  RUN [OPTIONS]  submit again what is neither done nor queued; --new-code: with today's code
    cost    RUN            GPU-hours of each stage, lost starts included
    doctor  [RUN]          what is wrong, and what to do about it
    sweep   --grid base.lr-scale=0.5,1,2 [OPTIONS]   one job array, a run for each combination of values
    serve   [OPTIONS]      a chat server as a job with the site's flags; OPTIONS are chat_web's, and --hours H
    site    [NAME]         the values of a site, and what each key means
    site detect [NAME]     a site file for this cluster, from what its Slurm says

OPTIONS: --preset, --run, --site, KEY=value for a key of the site, and any option of a stage.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

from nanochat.common import EXIT_DONE, EXIT_USAGE, UsageError, run_main
from nanochat.launch import commands

COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "plan": commands.plan, "submit": commands.submit, "entry": commands.entry, "status": commands.status,
    "logs": commands.logs, "stop": commands.stop, "cancel": commands.cancel, "resume": commands.resume,
    "cost": commands.cost, "doctor": commands.doctor, "attach": commands.attach, "site": commands.site,
    "sweep": commands.sweep, "serve": commands.serve,
}  # fmt: skip


def main(argv: list[str]) -> int:
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(__doc__.strip(), file=sys.stdout if argv else sys.stderr)
        return EXIT_DONE if argv else EXIT_USAGE
    if argv[0] not in COMMANDS:
        legal = ", ".join(name for name in COMMANDS if name != "entry")
        raise UsageError(f"unknown command {argv[0]!r}; commands are {legal}")
    return COMMANDS[argv[0]](argv[1:])


if __name__ == "__main__":
    run_main(main)
