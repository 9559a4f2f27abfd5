"""Getting the files of a run, on a node with network: find out, refuse, download, verify, rename, record.

What it is: `fetch(root, assets)`. It asks the hub once for each source which files there are, with sizes and
hashes, and pins the commit in the ledger; refuses to start if the disk does not hold the sum; downloads with
`huggingface_hub`, several files at a time; goes on with files that an earlier attempt left half-done. A file
gets its name only when its size and hash are right. HF_ENDPOINT may name another hub or a folder laid out
like one (`datasets/ORG/NAME/PATH`; for other addresses `HOST/PATH`). What it is not: the list of files
(`assets.py`). No torch. Run: `python -m scripts.download_data --preset speedrun`.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from nanochat.assets import CORPORA, Asset
from nanochat.common import UsageError, resolve, sha256_file
from nanochat.ledger import FETCH, Fault, Ledger, check
from nanochat.room import room
from nanochat.transfer import Progress, Remote, bring, here

WORKERS = 8
SAVE_EVERY_S = 30.0
HUB = "https://huggingface.co"


def endpoint() -> str:
    """The hub that HF_ENDPOINT names, or the public one."""
    return (os.environ.get("HF_ENDPOINT") or HUB).removeprefix("file://").rstrip("/")


@dataclass(frozen=True)
class Plan:
    """What is to be done: files to bring, assets that are whole already, faults that no download mends."""

    remotes: tuple[Remote, ...]
    whole: int
    own: tuple[Fault, ...]

    @property
    def bytes(self) -> int:
        return sum(remote.size or 0 for remote in self.remotes)


def plan(root: Path, assets: list[Asset], ledger: Ledger) -> Plan:
    """Compare with the ledger, then ask the sources for what is lacking; if nothing is, ask nobody."""
    faults = [fault for fault in check(root, assets) if not _forgiven(root, fault, ledger)]
    lacking = list(dict.fromkeys(fault.asset for fault in faults if fault.asset.source))
    own = tuple(fault for fault in faults if not fault.asset.source)
    remotes: dict[str, Remote] = {}
    for source in dict.fromkeys(asset.source for asset in lacking):
        for remote in _ask(source, [asset for asset in lacking if asset.source == source], ledger):
            remotes[remote.place] = remote
    return Plan(tuple(remotes.values()), len(assets) - len(lacking) - len(own), own)


def _forgiven(root: Path, fault: Fault, ledger: Ledger) -> bool:
    """A copied file has another time; its hash decides."""
    entry = ledger.files.get(fault.place)
    if fault.kind != "time" or entry is None or sha256_file(resolve(root, fault.place)) != entry.sha256:
        return False
    ledger.add(fault.place, entry.asset, entry.source, entry.revision, entry.path, entry.sha256)
    return True


# ----------------------------------------------------------------------------- what the sources have


def _ask(source: str, assets: list[Asset], ledger: Ledger) -> Iterator[Remote]:
    hub = endpoint()
    if hub.startswith("/"):
        yield from _in_folder(Path(hub), source, assets)
    elif source.startswith(("http://", "https://")):
        yield from (_at_address(asset) for asset in assets)
    else:
        yield from _on_hub(hub, source, assets, ledger)


def _in_folder(mirror: Path, source: str, assets: list[Asset]) -> Iterator[Remote]:
    parts = urlsplit(source)
    base = mirror / (parts.netloc + parts.path if parts.scheme else source)
    files = [path.relative_to(base).as_posix() for path in sorted(base.rglob("*")) if path.is_file()]
    for asset, path in _matching(assets, files, str(base)):
        yield Remote(asset, path, str(base / path), (base / path).stat().st_size, sha256=asset.sha256)


def _at_address(asset: Asset) -> Remote:
    from huggingface_hub import get_hf_file_metadata

    url = f"{asset.source}/{asset.path}"
    with explained(url):
        facts = get_hf_file_metadata(url, timeout=20, token=False)
    return Remote(asset, asset.path, url, facts.size, etag=facts.etag, sha256=asset.sha256)


def _on_hub(hub: str, source: str, assets: list[Asset], ledger: Ledger) -> Iterator[Remote]:
    from huggingface_hub import HfApi, hf_hub_url
    from huggingface_hub.hf_api import RepoFile

    kind, repo = source.split("/", 1)
    kind = kind.removesuffix("s")
    api = HfApi(endpoint=hub)
    with explained(f"{hub}/{source}"):
        wanted = ledger.revisions.get(source, "main")
        revision = api.repo_info(repo, repo_type=kind, revision=wanted, timeout=20).sha
        tree = api.list_repo_tree(repo, repo_type=kind, revision=revision, recursive=True)
        files = {item.path: item for item in tree if isinstance(item, RepoFile)}
    if revision is None:
        raise UsageError(f"{hub}/{source} does not say which commit it serves; is HF_ENDPOINT a hub?")
    ledger.revisions[source] = revision
    for asset, path in _matching(assets, list(files), f"{source} at {revision}"):
        file, lfs = files[path], files[path].lfs
        url = hf_hub_url(repo, path, repo_type=kind, revision=revision, endpoint=hub)
        yield Remote(
            asset, path, url, lfs.size if lfs else file.size, revision=revision,
            sha256=lfs.sha256 if lfs else asset.sha256, git_sha1=None if lfs else file.blob_id,
        )  # fmt: skip


def _matching(assets: list[Asset], files: list[str], where: str) -> Iterator[tuple[Asset, str]]:
    names = set(files)
    for asset in assets:
        found = [asset.path] if asset.path in names else [path for path in files if asset.matches(path)]
        if not found:
            raise UsageError(f"{asset.name}: {where} has no {asset.path}; {len(files)} other files are there")
        yield from ((asset, path) for path in found)


@contextlib.contextmanager
def explained(url: str) -> Iterator[None]:
    """What the network's faults mean to the user, whichever HTTP library the hub's client stands on."""
    try:
        yield
    except (UsageError, KeyboardInterrupt):
        raise
    except Exception as error:
        status = getattr(getattr(error, "response", None), "status_code", None)
        remedy = {
            401: "log in with `hf auth login`", 403: "ask for access on its page, then `hf auth login`",
            404: "it has moved or been withdrawn; a mirror may have it: set HF_ENDPOINT",
        }.get(status or 0, f"run `{FETCH}` where there is a network, or set HF_ENDPOINT")  # fmt: skip
        reason = f"HTTP {status}" if status else f"{type(error).__name__}: {error}"
        raise UsageError(f"{url} cannot be read ({reason}); {remedy}") from error


# ----------------------------------------------------------------------------- the fetch


def fetch(
    root: Path,
    assets: Iterable[Asset],
    *,
    workers: int = WORKERS,
    extend: bool = False,
    say: Callable[[str], None] = print,
) -> Plan:
    """Bring everything that is lacking; the ledger is right whenever this ends, however it ends."""
    wanted = list(assets)
    ledger = Ledger.load(root)
    _refuse_other_data(root, wanted, extend)
    before = dict(ledger.files)
    work = plan(root, wanted, ledger)
    _refuse_full_disk(root, work)
    if work.remotes:
        say(f"{len(work.remotes)} files, {work.bytes / 1e9:,.2f} GB to bring to {root}")
        with _no_bars():
            _bring_all(root, work, ledger, workers, say)
    if ledger.files != before:
        ledger.save()
    _write_data_manifests(root, wanted, ledger)
    return work


@contextlib.contextmanager
def _no_bars() -> Iterator[None]:
    """Without a bar of the hub's client for each file: `Progress` tells of all."""
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    were_disabled = are_progress_bars_disabled()
    disable_progress_bars()
    try:
        yield
    finally:
        if not were_disabled:
            enable_progress_bars()


def _bring_all(root: Path, work: Plan, ledger: Ledger, workers: int, say: Callable[[str], None]) -> None:
    progress = Progress(work.bytes, len(work.remotes), say)
    pool = ThreadPoolExecutor(workers)
    # the files of one asset are known to the ledger only together: half of a split is none
    open_files: dict[str, set[str]] = {}
    for remote in work.remotes:
        open_files.setdefault(remote.asset.name, set()).add(remote.place)
    twins = {entry.sha256: resolve(root, place) for place, entry in ledger.files.items()}
    waiting: set[Future[Any]] = {pool.submit(bring, root, one, twins, progress) for one in work.remotes}
    saved = progress.now()
    try:
        while waiting:
            done, waiting = wait(waiting, timeout=0.5, return_when=FIRST_COMPLETED)
            for future in done:
                remote, places = future.result()
                for place, path, sha256 in places:
                    ledger.add(place, remote.asset.name, remote.asset.source, remote.revision, path, sha256)
                open_files[remote.asset.name].discard(remote.place)
                if not remote.asset.is_one_file and not open_files[remote.asset.name]:
                    _close(work, remote.asset, ledger, [place for place, _, _ in places])
            progress.tell()
            if progress.now() - saved > SAVE_EVERY_S:
                ledger.save()
                saved = progress.now()
        progress.tell(final=True)
    finally:
        progress.stop()
        pool.shutdown(wait=True, cancel_futures=True)
        ledger.save()


def _close(work: Plan, asset: Asset, ledger: Ledger, unpacked: list[str]) -> None:
    brought = [remote.place for remote in work.remotes if remote.asset == asset]
    ledger.assets[asset.name] = sorted(unpacked if asset.unpack else brought)


def _refuse_full_disk(root: Path, work: Plan) -> None:
    need, free = work.bytes - sum(here(root, remote) for remote in work.remotes), room(root)
    if free.bytes is not None and need > free.bytes:
        which = "the quota" if free.bytes == free.quota_bytes else "the disk"
        raise UsageError(
            f"{need / 1e9:,.2f} GB are to come, and {which} at {root} has {free.bytes / 1e9:,.2f} GB left; "
            "free some space, set NANOCHAT_BASE_DIR elsewhere, or take fewer with --shards"
        )
    files = min((n for n in (free.free_files, free.quota_files) if n is not None), default=None)
    if files is not None and len(work.remotes) > files:
        raise UsageError(f"{len(work.remotes)} files are to come, and {root} has {files} inodes left")


# ----------------------------------------------------------------------------- manifests of data folders


def _shard_folders(root: Path, assets: list[Asset]) -> dict[Path, list[Asset]]:
    sources = {corpus.source for corpus in CORPORA.values()}
    folders: dict[Path, list[Asset]] = {}
    for asset in assets:
        if asset.name == "shards" and asset.source in sources:
            folders.setdefault(resolve(root, asset.target), []).append(asset)
    return folders


def _refuse_other_data(root: Path, assets: list[Asset], extend: bool) -> None:
    """A run reads what its data folder's manifest names, so that may not grow behind a run's back."""
    from nanochat.dataset import MANIFEST, manifest_names

    for folder, shards in _shard_folders(root, assets).items():
        named = manifest_names(folder)
        new = {asset.path for asset in shards} - named
        if named and new and not extend:
            raise UsageError(
                f"{folder / MANIFEST} names {len(named)} shards, and {len(new)} others are wanted; runs "
                "begun with it could not go on with more. Choose another --data-dir (what is here is linked, "
                "not downloaded again), or add them with --extend"
            )


def _write_data_manifests(root: Path, assets: list[Asset], ledger: Ledger) -> None:
    """`manifest.json` beside the shards, from the hashes of the ledger: no stage hashes them again."""
    from nanochat import dataset

    for folder, shards in _shard_folders(root, assets).items():
        named = dataset.manifest_names(folder)
        if {asset.path for asset in shards} <= named:
            continue
        last = max(asset.path for asset in shards)
        kept = {asset.path: ledger.files[asset.place].sha256 for asset in shards}
        if named:
            kept |= {shard.name: shard.sha256 for shard in dataset.load_manifest(folder, verify=False).shards}
        found = tuple(
            dataset.inspect_shard(folder / name, "val" if name == last else "train", sha256)
            for name, sha256 in sorted(kept.items())
        )
        origin = {"source": shards[0].source, "revision": ledger.revisions.get(shards[0].source)}
        dataset.save_manifest(dataset.Manifest(folder, found, origin))
