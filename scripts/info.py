"""What is here: `nanochat info`, or `python -m scripts.info [--json]`; `--self-test` proves that it works.

The table takes a second and loads no torch: versions, GPUs, compiler, memory, fabric, container, places,
Slurm, and remarks on what will hurt, with remedies. The self-test takes a few seconds and no network; exit
code 1 if a part of it failed.
"""

from __future__ import annotations

import json
from dataclasses import asdict

from nanochat.common import EXIT_DONE, EXIT_FAULT, base_dir, run_main
from nanochat.config import Info
from nanochat.configurator import parse


def self_test(as_json: bool) -> int:
    from nanochat import selftest

    parts = []
    for part in selftest.run():
        parts.append(part)
        if not as_json:
            print(part, flush=True)
    failed = [part.name for part in parts if part.ok is False]
    if as_json:
        print(json.dumps({"failed": failed, "parts": [asdict(part) for part in parts]}, indent=2))
    else:
        verdict = f"FAILED ({'; '.join(failed)})" if failed else "passed"
        print(f"self-test: {verdict}, {sum(part.seconds for part in parts):.1f} s")
    return EXIT_FAULT if failed else EXIT_DONE


def main(argv: list[str]) -> int:
    config = parse(Info, argv, prog="info", about=__doc__)
    if config.self_test:
        return self_test(config.json)

    from rich.console import Console

    from nanochat import info

    found = info.look(base_dir(config.base_dir))
    remarks = list(info.remarks(found))
    if config.json:
        print(json.dumps({**found, "remarks": [asdict(remark) for remark in remarks]}, indent=2))
        return EXIT_DONE
    Console(highlight=False).print(info.table(found))
    for remark in remarks:
        print(remark)
    return EXIT_DONE


if __name__ == "__main__":
    run_main(main)
