"""All mistakes of a run in one pass: `python -m scripts.preflight --site NAME --preset speedrun`.

Run it on the login node before submitting; jobs run it when they start (`--stages base`). It needs no GPU and
takes seconds; `--verify` hashes every file again. Exit code 0: the run may go; 2: something is yours to mend;
1: this node is at fault.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict

from nanochat.assets import Preflight
from nanochat.common import base_dir, print0, run_main
from nanochat.configurator import parse


def main(argv: list[str]) -> int:
    config = parse(Preflight, argv, prog="preflight", about=__doc__)

    from nanochat.launch import checks, sites
    from nanochat.preflight import exit_code

    started = time.monotonic()
    findings = checks.look(sites.load(config.site, {}), base_dir(config.base_dir), config)
    code = exit_code(findings)
    if config.json:
        print0(
            json.dumps({"exit_code": code, "findings": [asdict(finding) for finding in findings]}, indent=2)
        )
        return code
    for finding in findings:
        print0(finding)
    verdict = f"{len(findings)} mistake(s)" if findings else "nothing wrong"
    print0(f"preflight: {verdict}, {time.monotonic() - started:.1f} s")
    return code


if __name__ == "__main__":
    run_main(main)
