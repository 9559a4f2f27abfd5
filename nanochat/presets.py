"""Named sets of option values: `--preset laptop` and its like.

What it is: preset -> name of a config class -> values; a script takes those of its own class and of
its bases, the most special last. What it is not: options (`config.py`). No torch.
How to look at one: `python -m scripts.base_train --preset laptop --print-config`.
"""

from __future__ import annotations

from typing import Any

from nanochat.assets import MIXTURES

_CHAT = {  # mid-training, SFT, RL and exams on data from the hub
    "MidTrain": {"mixture": MIXTURES["mid"]}, "ChatSFT": {"mixture": MIXTURES["sft"]},
    "ChatEval": {"tasks": "all"}, "ChatRL": {"problems": "gsm8k"},
}  # fmt: skip

# Preset -> name of a config class -> values. A script takes those of its own class and of its bases.
PRESETS: dict[str, dict[str, dict[str, Any]]] = {
    # The whole pipeline on a laptop's CPU in minutes, offline, on the embedded world.
    "laptop": {
        "Rooted": {"run": "laptop"},
        "Places": {"data_dir": "data/world", "tok_dir": "tok/laptop"},
        "TokTrain": {"vocab_size": 2048, "digits": 1},
        "BaseEval": {"evals": "bpb,samples"},
        "Pipeline": {
            "recipe": "laptop", "embedded_world": True, "minutes_bfloat16": 15, "minutes_float32": 35,
            "disk_mib": 400,
        },
        "Wanted": {"corpus": "world", "depth": 4, "sft_mixture": "sft.jsonl,problems_sft.jsonl"},
        "ModelOptions": {"depth": 4, "head_dim": 64, "context": 256, "window_pattern": "L"},
        "Training": {
            "device_batch_rows": 16, "total_batch_tokens": 4096, "eval_tokens": 65_536,
            "save_every_steps": 100,
        },
        "BaseTrain": {"steps": 560, "warmup_steps": 20, "lr_scale": 4.0},
        "Finetune": {"depth": 4},
        "MidTrain": {"steps": 400, "lr_scale": 3.0},
        "ChatSFT": {"steps": 125, "lr_scale": 1.0, "mixture": "sft.jsonl,problems_sft.jsonl"},
        "ChatRL": {
            "depth": 4, "steps": 40, "lr_scale": 0.5, "num_samples": 8, "max_tokens": 96,
            "eval_prompts": 32, "eval_every_steps": 10, "save_every_steps": 10,
        },
    },
    # The smallest model that takes every path of the code; for tests.
    "tiny": {
        "Rooted": {"run": "tiny"},
        "Places": {"data_dir": "data/world", "tok_dir": "tok/tiny"},
        "Common": {"dtype": "float32"},
        "TokTrain": {"vocab_size": 512, "digits": 1},
        "BaseEval": {"evals": "bpb,samples"},
        "Pipeline": {
            "recipe": "tiny", "embedded_world": True, "control_items": 4, "minutes_bfloat16": 2,
            "minutes_float32": 2, "disk_mib": 50,
        },
        "Wanted": {"corpus": "world", "depth": 2},
        "SampleWorld": {"megabytes": 0.5, "mid_items": 400, "sft_items": 200},
        "ChatEval": {"limit": 8},
        "ModelOptions": {"depth": 2, "head_dim": 32, "context": 128, "window_pattern": "L"},
        "Training": {
            "steps": 20, "device_batch_rows": 2, "total_batch_tokens": 256, "warmup_steps": 2,
            "compile": False, "log_every_steps": 1, "eval_tokens": 1024,
            "eval_every_steps": 0, "save_every_steps": 0,
        },
        "Finetune": {"depth": 2},
        "ChatRL": {
            "depth": 2, "prompts_per_step": 2, "num_samples": 2, "max_tokens": 16, "eval_prompts": 4,
        },
        "RLControls": {"recipe": "tiny"},
    },
    # A few hundred steps of a small batch on any text: rates well above the batch law's (experiments/LOG.md).
    "short": {
        "Training": {"warmup_steps": 10, "save_every_steps": 0, "eval_every_steps": 0},
        "BaseTrain": {"lr_scale": 6.0},
    },
    # A smaller model for plain conversation: tied embeddings, thinner MLP, few key/value heads, no soft cap.
    # A quarter of d20's 10 heads, rounded down, is 2: a ratio of 5.
    "conversation": {
        "Rooted": {"run": "conversation"},
        "ModelOptions": {
            "depth": 20, "tie_embeddings": True, "context": 1024, "mlp_ratio": 3.0, "gqa_ratio": 5,
            "activation": "gelu", "softcap": 0.0,
        },
        "Training": {"device_batch_rows": 32},
    },
    # One node of eight GPUs with 80 GB each: hours (d20), two days (d32).
    "speedrun": {
        "ModelOptions": {"depth": 20}, "Training": {"device_batch_rows": 32}, "Finetune": {"depth": 20},
        "Pipeline": {"recipe": "speedrun", "run": "d20", "hardware": "8 GPUs of 80 GB"},
        "Wanted": {"depth": 20}, **_CHAT,
    },
    "run1000": {
        "ModelOptions": {"depth": 32}, "Training": {"device_batch_rows": 8}, "Finetune": {"depth": 32},
        "Pipeline": {"recipe": "run1000", "run": "d32", "hardware": "8 GPUs of 80 GB"},
        "Wanted": {"depth": 32}, **_CHAT,
    },
}  # fmt: skip
