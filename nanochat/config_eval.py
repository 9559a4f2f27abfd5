"""The options of the programs that measure or export a trained model; the others are in `config.py`.

What it is: plain data, as there. What it is not: parsing (`configurator.py`) or meaning. No torch.
How to look at it: `python -m scripts.base_eval --help`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from nanochat.common import UsageError
from nanochat.config import Trained
from nanochat.options import opt


@dataclass(frozen=True)
class BaseLoss(Trained):
    """Bits per byte of a model."""

    source: Literal["base", "mid", "sft", "rl"] = opt("base", "stage that trained it")
    split: Literal["train", "val"] = opt("val", "which shards")
    eval_tokens: int = opt(20 * 524_288, "tokens to evaluate at most", low=1)
    documents: int = opt(0, "instead: the split's first N documents, in windows", low=0)
    device_batch_rows: int = opt(16, "rows of one forward pass on one device", low=1)


@dataclass(frozen=True)
class BaseEval(BaseLoss):
    """CORE, bits per byte on both splits, and samples of a model."""

    evals: str = opt("core,bpb,samples", "what to do: core, bpb, samples, comma separated", alias=("eval",))
    bundle_dir: str = opt("eval_bundle", "folder of the CORE bundle, relative to base_dir")
    tasks: str = opt("", "CORE tasks, comma separated (default: all 22; only they make CORE)")
    max_per_task: int | None = opt(None, "questions of each task (default: all)", low=1)
    batch_kib: int | None = opt(None, "KiB of padded prompts in a batch (default: 16, on a GPU 512)", low=1)
    hf: str | None = opt(None, "folder of a transformers model to evaluate instead, for comparison")
    compare: tuple[str, str] | None = opt(
        None, "instead: two files of item records, the second beside the first"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.wanted or self.wanted - {"core", "bpb", "samples"}:
            raise UsageError(f"--evals {self.evals}: use one or more of core, bpb, samples")

    @property
    def wanted(self) -> set[str]:
        return set(self.evals.replace(" ", "").split(","))


@dataclass(frozen=True)
class ExportHF(Trained):
    """A classic model as a folder for transformers."""

    source: Literal["base", "mid", "sft"] = opt("base", "stage that trained it")
    target: str = opt("", "(or --to) folder to write", alias=("to",))
