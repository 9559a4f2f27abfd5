"""The one manifest of every file that any stage reads: `needed(wanted)`, a pure function of the plan.

What it is: the sources of shards, tokenizer files, benchmarks, word list, kernels and image, and which stage
reads which. What it is not: the files that are here (`ledger.py`) or the way to get them (`fetch.py`).
No torch, no network. How to look at it: `python -m scripts.download_data --dry-run --preset speedrun`.
"""

from __future__ import annotations

import fnmatch
import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from nanochat.common import UsageError
from nanochat.config import Places
from nanochat.options import opt

CHARS_PER_TOKEN, CHARS_PER_SHARD, TOKENIZER_CHARS = 4.8, 250e6, 2e9


@dataclass(frozen=True)
class Asset:
    """Files from one source. `path` is where they are there (a pattern may stand for several).

    `source`: `datasets/ORG/NAME` or `models/ORG/NAME` on the hub; the beginning of a URL; or "" for what a
    stage or the user writes, and then `maker` says how. `target` is the file's place below the base folder,
    or, ending in "/", the folder that takes the files. `unpack`: the file is a zip of them.
    """

    name: str
    source: str
    path: str
    target: str
    sha256: str | None = None  # where it is known beforehand
    unpack: bool = False
    maker: str = ""

    @property
    def is_one_file(self) -> bool:
        return not self.unpack and not set(self.path) & set("*?[")

    @property
    def place(self) -> str:
        """Where a single file belongs, below the base folder."""
        return self.target + self.path if self.target.endswith("/") else self.target

    def matches(self, path: str) -> bool:
        return fnmatch.fnmatchcase(path, self.path)


# ----------------------------------------------------------------------------- the manifest


@dataclass(frozen=True)
class Corpus:
    """Pretraining shards on the hub, `shard_00000.parquet` to `shard_{last}`, shuffled by their author."""

    source: str
    last: int
    note: str


CORPORA = {
    "fineweb-edu": Corpus("datasets/karpathy/fineweb-edu-100b-shuffle", 1822, "ODC-By 1.0"),
    "climbmix": Corpus(
        "datasets/karpathy/climbmix-400b-shuffle", 6542, "CC BY-NC 4.0: not for commercial use"
    ),
}


def _hub(name: str, source: str, *paths: str) -> tuple[Asset, ...]:
    folder = f"tasks/{name}/"
    return tuple(Asset(f"{name} {_words(path)}", f"datasets/{source}", path, folder) for path in paths)


def _words(path: str) -> str:
    """ "main/train-*.parquet" -> "main train"."""
    return path.removesuffix("-*.parquet").removeprefix("data/").replace("/", " ")


TIKTOKEN = "https://openaipublic.blob.core.windows.net"
TIKTOKEN_FILES = (  # with the hashes that tiktoken itself holds
    ("gpt-2/encodings/main/vocab.bpe", "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5"),
    ("gpt-2/encodings/main/encoder.json", "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783"),
    ("encodings/cl100k_base.tiktoken", "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7"),
)


def _tiktoken(path: str, sha256: str) -> Asset:
    """In TIKTOKEN_CACHE_DIR a file is found by the SHA-1 of its address."""
    name = hashlib.sha1(f"{TIKTOKEN}/{path}".encode()).hexdigest()
    return Asset(f"tiktoken {path.rsplit('/', 1)[1]}", TIKTOKEN, path, f"tiktoken/{name}", sha256)


# Every group of files that is not made here. The commit behind `main` is resolved by the first fetch and
# pinned in the ledger; the hashes are the hub's own, except where one stands here.
GROUPS: dict[str, tuple[Asset, ...]] = {
    "tiktoken": tuple(_tiktoken(*line) for line in TIKTOKEN_FILES),
    "core": (
        Asset("eval bundle", "https://karpathy-public.s3.us-west-2.amazonaws.com", "eval_bundle.zip",
              "eval_bundle/", unpack=True),
    ),
    "smoltalk": _hub("smoltalk", "HuggingFaceTB/smol-smoltalk", "data/train-*.parquet",
                     "data/test-*.parquet"),
    "mmlu": _hub("mmlu", "cais/mmlu", "all/auxiliary_train-*.parquet", "all/test-*.parquet",
                 "all/validation-*.parquet", "all/dev-*.parquet"),
    "gsm8k": _hub("gsm8k", "openai/gsm8k", "main/train-*.parquet", "main/test-*.parquet"),
    "arc": _hub("arc", "allenai/ai2_arc", *(
        f"ARC-{kind}/{split}-*.parquet" for kind in ("Easy", "Challenge")
        for split in ("train", "validation", "test"))),
    "humaneval": _hub("humaneval", "openai/openai_humaneval", "openai_humaneval/test-*.parquet"),
    "words": (
        Asset("word list", "https://raw.githubusercontent.com/dwyl/english-words", "master/words_alpha.txt",
              "words_alpha.txt"),
    ),
}  # fmt: skip

# What each stage reads beside shards, tokenizer and mixture, except on the embedded world.
READS = {
    "tok_eval": ("tiktoken",),
    "base_eval": ("core",),
    "chat_eval": ("arc", "mmlu", "gsm8k", "humaneval", "words"),
    "rl": ("gsm8k",),
}
# The cluster recipe's mixtures, in the words of `--mixture`, and the files behind each task of theirs.
MIXTURES = {
    "mid": "smoltalk,mmlu,gsm8k,identity,identity,spelling:200000,spellingbee:80000",
    "sft": "arc-easy,arc-challenge,gsm8k,smoltalk:10000,identity,spelling:300,spellingbee:300",
}
TASK_FILES: dict[str, tuple[Asset, ...]] = {
    "smoltalk": GROUPS["smoltalk"], "mmlu": GROUPS["mmlu"], "gsm8k": GROUPS["gsm8k"],
    "arc-easy": GROUPS["arc"], "arc-challenge": GROUPS["arc"],
    "spelling": GROUPS["words"], "spellingbee": GROUPS["words"], "identity": (),
}  # fmt: skip
STAGES = ("data", "tok_train", "tok_eval", "base", "base_eval", "mid", "sft", "chat_eval", "rl", "report")


@dataclass(frozen=True)
class Wanted(Places):
    """The plan of a run, as far as its files go."""

    stages: str = opt(",".join(STAGES[:8]), "stages, comma separated; `data` fetches what the others read")
    corpus: Literal["fineweb-edu", "climbmix", "world", "own"] = opt(
        "fineweb-edu", "pretraining text: a hub corpus, the embedded world, or your own shards"
    )
    depth: int = opt(20, "depth of the run, from which the number of shards follows", low=1)
    ratio: float = opt(12.0, "training tokens per parameter in matrices and head", low=0.001)
    shards: int | None = opt(None, "training shards (default: what depth and ratio take)", low=1)
    mid_mixture: str | None = opt(None, "the mixture of mid: tasks, and files in data_dir")
    sft_mixture: str | None = opt(None, "the mixture of SFT: tasks, and files in data_dir")
    kernels: str | None = opt(
        None,
        "build of the attention kernels to fetch, such as torch29-cxx11-cu128-x86_64-linux",
        pattern=r"[\w-]+",
    )
    image: str | None = opt(None, "container image; relative paths are below base_dir")

    def __post_init__(self) -> None:
        super().__post_init__()
        if odd := [stage for stage in self.stage_names if stage not in STAGES]:
            raise UsageError(f"--stages {odd[0]}: choose from {', '.join(STAGES)}")
        corpus = CORPORA.get(self.corpus)
        if corpus and self.shards is not None and self.shards > corpus.last:
            raise UsageError(f"--shards {self.shards}: {self.corpus} has {corpus.last} to train on")

    @property
    def stage_names(self) -> tuple[str, ...]:
        return tuple(name.strip() for name in self.stages.split(",") if name.strip())

    def mixture(self, stage: str) -> tuple[str, ...]:
        given = getattr(self, f"{stage}_mixture")
        names = given or (MIXTURES[stage] if self.corpus in CORPORA else f"{stage}.jsonl")
        return tuple(name.strip() for name in names.split(",") if name.strip())


@dataclass(frozen=True)
class DownloadData(Wanted):
    """How to fetch it."""

    workers: int = opt(8, "files to bring at a time", low=1, high=64)
    extend: bool = opt(False, "let a data folder that has a manifest grow")
    dry_run: bool = opt(False, "print what is needed, and what of it is here, and exit")


@dataclass(frozen=True)
class Preflight(Wanted):
    """What to look at, and how closely."""

    site: str | None = opt(None, "name of a file in env/sites/, or a path that ends in .env")
    verify: bool = opt(False, "hash every file again (about 1 s a GB)")
    json: bool = opt(False, "print one JSON object")


def shards_for(depth: int, ratio: float, vocab_size: int = 65_536) -> int:
    """Shards that one pass takes, 5 % over: 12 w^2 parameters a layer and the head, 4.8 letters a token."""
    width = -(-depth * 64 // 128) * 128
    tokens = ratio * (12 * depth * width**2 + vocab_size * width)
    return math.ceil(1.05 * max(tokens * CHARS_PER_TOKEN, TOKENIZER_CHARS) / CHARS_PER_SHARD)


def needed(wanted: Wanted) -> list[Asset]:
    """Every asset that the plan's stages read, each once, in the order in which they are wanted."""
    found: dict[str, Asset] = {}
    for stage in wanted.stage_names:
        for asset in _reads(stage, wanted):
            found.setdefault(asset.place if asset.is_one_file else asset.name, asset)
    return list(found.values())


def _reads(stage: str, wanted: Wanted) -> Iterator[Asset]:
    if stage in ("tok_train", "tok_eval", "base", "base_eval"):
        yield from _shards(wanted)
    if stage not in ("data", "tok_train", "report") and "tok_train" not in wanted.stage_names:
        file = "tokenizer.json"
        yield Asset("tokenizer", "", file, f"{wanted.tok_dir}/", maker="python -m scripts.tok_train")
    if stage in ("mid", "sft"):
        for name in wanted.mixture(stage):
            task = name.partition(":")[0]
            yield from TASK_FILES[task] if task in TASK_FILES else (_own(wanted, task),)
    if stage == "chat_eval" and wanted.corpus == "world":
        yield _own(wanted, "exams.json")
    elif stage == "rl" and wanted.corpus == "world":
        yield _own(wanted, "problems.jsonl")
    elif wanted.corpus != "world":  # exams are the same, whatever text a model was pretrained on
        yield from (asset for group in READS.get(stage, ()) for asset in GROUPS[group])
    if stage == "base":
        yield from _kernels(wanted.kernels) if wanted.kernels else ()
    if wanted.image and stage != "data":
        yield Asset("container image", "", wanted.image, wanted.image, maker="see containers/README.md")


def _shards(wanted: Wanted) -> Iterator[Asset]:
    corpus, folder = CORPORA.get(wanted.corpus), f"{wanted.data_dir}/"
    if corpus is None:
        yield _own(wanted, "manifest.json")
        return
    count = wanted.shards or min(shards_for(wanted.depth, wanted.ratio), corpus.last)
    for index in (*range(count), corpus.last):  # the last one validates, however many there are
        name = f"shard_{index:05d}.parquet"
        yield Asset("shards", corpus.source, name, folder)


def _kernels(build: str) -> Iterator[Asset]:
    """FlashAttention-3, built for one pair of torch and CUDA."""
    source = "models/kernels-community/flash-attn3"
    yield Asset(f"attention kernels {build}", source, f"build/{build}/*", "kernels/flash-attn3/")


def _own(wanted: Wanted, name: str) -> Asset:
    """A file in the data folder that nothing downloads."""
    world = wanted.corpus == "world"
    maker = "python -m scripts.sample_world" if world else "python -m scripts.prepare_data, or write it"
    return Asset(f"{wanted.corpus} {name}", "", name, f"{wanted.data_dir}/", maker=maker)
