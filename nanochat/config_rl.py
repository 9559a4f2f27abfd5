"""The options of reinforcement learning and of its controls; see `config.py` for what an option is.

How to look at them: `python -m scripts.chat_rl --help`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from nanochat.config import RUN_NAME, Places, Training
from nanochat.options import opt


@dataclass(frozen=True)
class ChatRL(Training):
    """Reinforcement learning: replies to problems, sampled from the model itself and rewarded."""

    depth: int = opt(20, "depth of the run to continue; only names the default run", low=1)
    source: Literal["base", "mid", "sft"] = opt("sft", "stage to start from")
    source_run: str | None = opt(None, "run to start from (default: this one)", pattern=RUN_NAME)
    problems: str = opt(
        "problems.jsonl",
        "gsm8k, spellingbee, or files in data_dir: JSONL, Parquet with `messages`, `result`",
    )
    epochs: float = opt(1.0, "passes over the problems, if steps is not given", low=0.001)
    prompts_per_step: int = opt(16, "problems of a step, over all ranks", alias=("examples_per_step",), low=1)
    num_samples: int = opt(16, "replies to each problem: its group", alias=("samples",), low=2)
    max_tokens: int = opt(256, "tokens of a reply at most", alias=("max_new_tokens",), low=1)
    temperature: float = opt(1.0, "of the replies; 1 = as the model is", low=0.01)
    top_k: int = opt(0, "choose among the k likeliest tokens; 0 = all, as the model is", low=0)
    kl: float = opt(0.0, "weight of the KL divergence from the model that it starts from; 0 = off", low=0)
    shuffle_rewards: bool = opt(False, "control: the rewards of a group go to its replies at random")
    rollout_rows: int = opt(256, "replies that are written at a time on one device", low=1)
    eval_prompts: int = opt(64, "problems of a validation; they are not trained on", low=1)
    compile: bool = opt(False, "compile the model; replies differ in length, so many shapes are compiled")
    warmup_steps: int = opt(0, "linear warm-up of the learning rates", low=0)
    warmdown_ratio: float = opt(1.0, "share of the run in which the learning rates fall", low=0, high=1)
    final_lr_ratio: float = opt(0.0, "learning rates at the end, as a share of the peak", low=0, high=1)
    lr_scale: float = opt(0.05, "multiplies every learning rate", alias=("lr", "learning_rate"), low=0)
    eval_every_steps: int = opt(60, "steps between validations; 0 = only at the end", low=0)
    save_every_steps: int = opt(60, "steps between checkpoints; 0 = only at the end", low=0)


@dataclass(frozen=True)
class RLControls(Places):
    """Which runs to compare."""

    recipe: str = opt("laptop", "preset of every run (set by --preset)")
    seeds: int = opt(3, "seeds, from 1", low=1)
    exam: str = opt("problems_exam.jsonl", "file in data_dir: problems that no stage has seen")
    num_samples: int = opt(4, "sampled replies to each problem of the exam", low=1)
    threads: int = opt(2, "CPU threads of every run", low=1)
