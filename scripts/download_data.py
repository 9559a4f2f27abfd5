"""Bring every file that a run reads: `python -m scripts.download_data --preset speedrun`.

Files come from the hub (or the mirror or folder that HF_ENDPOINT names) at a pinned commit, are verified, and
are written down in `assets.json`, against which compute nodes without network check them. Stopped, the same
command goes on; once all is there it asks nobody and ends.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from nanochat.assets import CORPORA, Asset, DownloadData, needed
from nanochat.common import EXIT_DONE, EXIT_USAGE, base_dir, print0, run_main
from nanochat.configurator import parse
from nanochat.ledger import check


def main(argv: list[str]) -> int:
    config = parse(DownloadData, argv, prog="download_data", about=__doc__)
    root, assets = base_dir(config.base_dir), needed(config)
    if config.corpus in CORPORA:
        print0(f"{config.corpus}: {CORPORA[config.corpus].source}, licence {CORPORA[config.corpus].note}")
    if config.dry_run:
        _print_table(root, assets)
        return EXIT_DONE

    from nanochat.fetch import fetch

    done = fetch(root, assets, workers=config.workers, extend=config.extend, say=print0)
    print0(f"{len(done.remotes)} files brought, {done.whole} of {len(assets)} assets were here already")
    for fault in done.own:
        print0(f"not to be fetched: {fault.text}; {fault.remedy}")
    return EXIT_USAGE if done.own else EXIT_DONE


def _print_table(root: Path, assets: list[Asset]) -> None:
    faults = Counter(fault.asset.name for fault in check(root, assets))
    names = Counter(asset.name for asset in assets)
    sources = {asset.name: asset.source or asset.maker for asset in assets}
    print0(f"{'asset':<34} {'files':>6} {'lacking':>8}  source")
    for name, count in names.items():
        print0(f"{name:<34} {count:>6} {faults[name]:>8}  {sources[name]}")


if __name__ == "__main__":
    run_main(main)
