"""How long a stage takes, before it runs: from a rate measured in an earlier run, else from peak and
utilisation.

What it is: parameters and FLOPs of an architecture by formula (a test holds them to the model's own count),
tokens a second, hours. What it is not: a promise; segments carry a stage on when it takes longer. Look at it:
`python -m scripts.launch plan --preset speedrun`.
"""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

from nanochat import metrics
from nanochat.common import peak_flops, read_json
from nanochat.config import GPTConfig
from nanochat.launch.sites import Site

VOCAB_ROWS = 64  # embeddings are padded to a multiple of it
UTILISATION = 0.4  # of the dense bfloat16 peak; d20 on 8 H100 measured .40 to .48, on 8 A100 .44
CPU_FLOPS = 2e10  # of one process: only a test cluster computes on CPUs
UNKNOWN_GPU = "A100"
OVERHEAD = 1.15  # validations, checkpoints, samples
START_HOURS = 0.1  # imports over the network, compilation
RECORDS = 200  # of the end of metrics.jsonl: the rate of an earlier run


def scaling_parameters(config: GPTConfig) -> int:
    """Parameters in matrices and head: what horizon and FLOPs go with."""
    width, hidden = config.width, config.mlp_width
    kv_width = config.kv_heads * config.head_dim
    mlp = (3 if config.activation == "swiglu" else 2) * width * hidden
    head = -(-config.vocab_size // VOCAB_ROWS) * VOCAB_ROWS * width
    return config.depth * (2 * width * (width + kv_width) + mlp) + head


def flops_per_token(config: GPTConfig) -> int:
    return 6 * scaling_parameters(config) + sum(12 * config.width * window for window in config.windows)


def rate(site: Site, config: GPTConfig, ranks: int) -> float:
    """Tokens a second that `ranks` processes are expected to train on."""
    if site.device == "cpu":
        return CPU_FLOPS * ranks / flops_per_token(config)
    peak = peak_flops(site.gpu_type) or peak_flops(UNKNOWN_GPU)
    assert peak is not None
    return UTILISATION * peak * ranks / flops_per_token(config)


def measured(root: Path, site: Site, depth: int, ranks: int) -> tuple[float, str] | None:
    """(tokens a second, run) of the newest run of this depth on such GPUs below `root`, scaled to `ranks`."""
    plans = sorted((root / "runs").glob("*/plan.json"), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in plans:
        plan = read_json(path)
        base: dict[str, Any] = next((s for s in plan["stages"] if s["trains"] == "base"), {})
        folder = root / f"base_{plan['run']}"
        same = (plan["site"]["gpu_type"], plan["site"]["device"]) == (site.gpu_type, site.device)
        if not (base and same and (folder / "config.json").is_file()):
            continue
        if read_json(folder / "config.json").get("depth") != depth:
            continue
        rates = [
            r["tokens_per_s"]
            for r in metrics.read(folder / "metrics.jsonl")[-RECORDS:]
            if "tokens_per_s" in r
        ]
        if rates:
            return statistics.median(rates) * ranks / (base["nodes"] * base["ranks"]), plan["run"]
    return None


def hours(tokens: float, tokens_per_s: float) -> float:
    return START_HOURS + OVERHEAD * tokens / tokens_per_s / 3600
