"""Write the report of a run: report.md, report.html and report.json in runs/RUN/report/ and in report/.

Works at any time, also on a run that is unfinished or has failed: what is there is reported.
`python -m scripts.report --run laptop`
"""

from __future__ import annotations

from nanochat.common import base_dir, run_main
from nanochat.config import Rooted
from nanochat.configurator import parse


def main(argv: list[str]) -> None:
    config = parse(Rooted, argv, prog="report", about=__doc__)

    from nanochat import report

    root = base_dir(config.base_dir)
    folder = report.write(root, config.run or report.newest_run(root))
    print((folder / "report.md").read_text(encoding="utf-8"))
    print(f"report: {folder / 'report.html'}")


if __name__ == "__main__":
    run_main(main)
