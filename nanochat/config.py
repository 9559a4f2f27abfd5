"""The options of the scripts, as frozen dataclasses: the single source of truth.

What it is: plain data. Names, types, defaults, one line of help each, and the legacy flag names
that still work. `GPTConfig` (what a checkpoint stores) is here, too, so that a login node can plan
a run without torch. Options of what comes before training are in `config_data.py`, of base evaluation in
`config_eval.py`. What it is not: parsing (`configurator.py`) or meaning (the modules that read it).

Units are in the names: `_tokens`, `_steps`, `_rows`, `_minutes`, `_mib`. `None` means "derive it":
one dial, `--depth`, sets width, heads, horizon, batch and learning rates (`GPTConfig.from_depth`,
`schedule.py`). How to look at it: `python -m scripts.base_train --help` or `--print-config`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from nanochat.common import UsageError, launched
from nanochat.options import Checked, opt

Arch = Literal["modern", "classic"]
Activation = Literal["relu2", "gelu", "silu", "swiglu"]
Dtype = Literal["auto", "float32", "bfloat16"]
Device = Literal["auto", "cuda", "mps", "cpu"]
RUN_NAME = r"\w[\w.-]*"  # it becomes part of a folder's name


# ----------------------------------------------------------------------------- the model


@dataclass(frozen=True)
class GPTConfig:
    """The architecture, as stored in every checkpoint. Widths in features, lengths in tokens."""

    vocab_size: int
    depth: int
    width: int
    heads: int
    kv_heads: int
    context: int = 2048
    arch: Arch = "modern"
    mlp_ratio: float = 4.0
    activation: Activation = "relu2"
    tie_embeddings: bool = False
    softcap: float = 15.0  # 0 switches it off
    rope_base: float = 100_000.0
    window_pattern: str = "SSSL"  # tiled over the layers; S = context/4, L = context; the last is always L

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise UsageError(f"width {self.width} is not divisible by heads {self.heads}")
        if self.heads % self.kv_heads:
            raise UsageError(f"heads {self.heads} is not divisible by kv_heads {self.kv_heads}")
        if self.head_dim % 2:
            raise UsageError(f"head dimension {self.head_dim} is odd; rotary embeddings need an even one")
        if self.arch == "modern" and self.width < 24:
            raise UsageError(
                f"width {self.width}: the modern architecture's gates read 24 features; use more"
            )
        if not self.window_pattern or set(self.window_pattern) - {"S", "L"}:
            raise UsageError(f"window_pattern {self.window_pattern!r}: use the letters S and L, like SSSL")

    @property
    def head_dim(self) -> int:
        return self.width // self.heads

    @property
    def mlp_width(self) -> int:
        return int(self.mlp_ratio * self.width)

    @property
    def windows(self) -> tuple[int, ...]:
        """Attention window of each layer in tokens; the last layer always sees the whole context."""
        short = max(128, -(-self.context // 4 // 128) * 128)
        sizes = {"S": min(short, self.context), "L": self.context}
        tiled = [sizes[self.window_pattern[i % len(self.window_pattern)]] for i in range(self.depth)]
        return (*tiled[:-1], self.context)

    @property
    def value_layers(self) -> tuple[int, ...]:
        """Layers with a value embedding: every other one, the last included (none in `classic`)."""
        first = (self.depth - 1) % 2 if self.arch == "modern" else self.depth
        return tuple(range(first, self.depth, 2))


@dataclass(frozen=True)
class Rooted(Checked):
    """Whose artifacts, and below which folder."""

    run: str | None = opt(None, "name of the run, part of its folders' (default: dDEPTH)", pattern=RUN_NAME)
    base_dir: str | None = opt(None, "root of all artifacts (default: ~/.cache/nanochat)")


@dataclass(frozen=True)
class Places(Rooted):
    """Where the data and the tokenizer are."""

    data_dir: str = opt("data", "folder of shards, relative to base_dir", alias=("data", "data_file"))
    tok_dir: str = opt("tok", "folder of the tokenizer, relative to base_dir")


@dataclass(frozen=True)
class Common(Places):
    """What a script that loads torch runs on."""

    device: Device = opt("auto", "auto (cuda, then mps, then cpu), cuda, mps or cpu")
    dtype: Dtype = opt("auto", "compute precision; auto measures whether bfloat16 is faster here, once")
    threads: int | None = opt(None, "CPU threads (default: probed)", low=1)
    seed: int = opt(42, "seed of initialisation, data order and sampling", low=0)


@dataclass(frozen=True)
class ModelOptions(Checked):
    """The dial and the options behind it. `None` follows from the depth."""

    depth: int = opt(20, "number of layers: the one dial", low=1)
    arch: Arch = opt("modern", "modern (value embeddings, lambdas, smear, backout) or classic (Oct 2025)")
    head_dim: int = opt(128, "features of an attention head", low=2)
    context: int = opt(2048, "context in tokens", alias=("max_seq_len", "seq_len", "block_size"), low=2)
    window_pattern: str = opt("SSSL", "attention windows, tiled over the layers: S = context/4, L = all")
    mlp_ratio: float = opt(4.0, "MLP width over model width", low=0.125)
    gqa_ratio: int = opt(1, "query heads that share one key/value head", low=1)
    activation: Activation = opt("relu2", "MLP activation")
    tie_embeddings: bool = opt(False, "share the token embedding with the output head")
    softcap: float = opt(15.0, "soft cap of the logits; 0 = off", low=0)
    rope_base: float = opt(100_000.0, "base of the rotary embeddings", low=1)

    def gpt_config(self, vocab_size: int) -> GPTConfig:
        """The architecture that these options mean. Width is 64 a layer, rounded up to whole heads."""
        width = -(-self.depth * 64 // self.head_dim) * self.head_dim
        heads = width // self.head_dim
        if heads % self.gqa_ratio:
            raise UsageError(f"gqa_ratio {self.gqa_ratio} does not divide the {heads} heads of d{self.depth}")
        return GPTConfig(
            vocab_size=vocab_size, depth=self.depth, width=width,
            heads=heads, kv_heads=heads // self.gqa_ratio,
            context=self.context, arch=self.arch, mlp_ratio=self.mlp_ratio, activation=self.activation,
            tie_embeddings=self.tie_embeddings, softcap=self.softcap, rope_base=self.rope_base,
            window_pattern=self.window_pattern if self.arch == "modern" else "L",
        )  # fmt: skip


# ----------------------------------------------------------------------------- training


@dataclass(frozen=True)
class Training(Common):
    """What the one loop needs, whatever it trains."""

    steps: int | None = opt(None, "optimizer steps", alias=("num_iterations", "max_iters"), low=1)
    tokens: int | None = opt(None, "training tokens, if steps is not given", alias=("target_tokens",), low=1)
    total_batch_tokens: int | None = opt(None, "tokens of a whole step", alias=("total_batch_size",), low=1)
    device_batch_rows: int = opt(
        16, "rows of a forward pass", alias=("device_batch_size", "batch", "batch_size"), low=1
    )
    warmup_steps: int = opt(40, "linear warm-up of the learning rates", low=0)
    warmdown_ratio: float = opt(0.65, "share of the run in which the learning rates fall", low=0, high=1)
    final_lr_ratio: float = opt(0.05, "learning rates at the end, as a share of the peak", low=0, high=1)
    lr_scale: float = opt(1.0, "multiplies every learning rate", alias=("lr", "learning_rate"), low=0)
    matrix_lr: float = opt(0.02, "Muon learning rate of the matrices", low=0)
    embedding_lr: float = opt(0.3, "AdamW learning rate of the token embedding", low=0)
    head_lr: float = opt(0.008, "AdamW learning rate of the output head", low=0)
    scalar_lr: float = opt(0.5, "AdamW learning rate of the scalars", low=0)
    weight_decay: float | None = opt(None, "cautious weight decay of the matrices", low=0)
    optimizer: Literal["muon", "adamw"] = opt("muon", "optimizer of the matrices")
    compile: bool = opt(True, "compile the model; first step takes 30 s to 2 minutes on a CPU")
    log_every_steps: int = opt(10, "steps between progress lines", low=1)
    eval_every_steps: int = opt(250, "steps between validations; 0 = only at the end", low=0)
    eval_tokens: int = opt(20 * 524_288, "tokens of one validation", low=1)
    sample_every_steps: int = opt(0, "steps between samples; 0 = only at the end", low=0)
    save_every_steps: int = opt(250, "steps between checkpoints; 0 = only at the end", low=0)
    keep_last: int = opt(2, "checkpoints kept beside the best one", low=1)
    stop_at_step: int | None = opt(None, "stop cleanly (exit 75) after this step", low=1)
    max_minutes: float | None = opt(None, "stop cleanly (exit 75) after this many minutes", low=0)
    deadline: float | None = opt(None, "stop cleanly (exit 75) at this time, in seconds since 1970", low=0)
    fresh: bool = opt(False, "start again: an existing run folder is moved aside, never resumed")

    @property
    def run_name(self) -> str:
        return self.run or f"d{self.depth}"  # type: ignore[attr-defined]

    def accumulation(self, batch_tokens: int, context: int, ranks: int) -> int:
        """Micro-batches a rank in one step; refuses a batch that does not divide and names one that does."""
        unit = self.device_batch_rows * context * ranks
        if batch_tokens % unit:
            legal = max(1, round(batch_tokens / unit)) * unit
            raise UsageError(
                f"--total-batch-tokens {batch_tokens:,} is not a multiple of device_batch_rows "
                f"{self.device_batch_rows} x context {context} x {ranks} rank(s) = {unit:,}; "
                f"the nearest that is: {legal:,}"
            )
        return batch_tokens // unit


@dataclass(frozen=True)
class BaseTrain(ModelOptions, Training):
    """Pretraining: next-token prediction on documents."""

    ratio: float = opt(12.0, "training tokens per parameter in matrices and head", low=0.001)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.gpt_config(vocab_size=1)  # refuses widths and heads that do not fit
        if self.total_batch_tokens is not None:
            self.accumulation(self.total_batch_tokens, self.context, launched()[2])


@dataclass(frozen=True)
class Finetune(Training):
    """What mid-training and SFT share: where they start and what they read."""

    depth: int = opt(20, "depth of the run to continue; only names the default run", low=1)
    source: Literal["base", "mid"] = opt("base", "stage to start from")
    supervise: Literal["assistant", "all"] = opt("all", "tokens that count in the loss")
    source_run: str | None = opt(None, "run to start from (default: this one)", pattern=RUN_NAME)
    from_scratch: bool = opt(False, "control: start from random weights of the source's architecture")
    mixture: str = opt("mid.jsonl", "tasks, and JSONL or Parquet files in data_dir; NAME:N takes N items")
    epochs: float = opt(1.0, "passes over the mixture", alias=("num_epochs",), low=0.001)


@dataclass(frozen=True)
class MidTrain(Finetune):
    """Mid-training: conversations and text, every token supervised."""

    warmup_steps: int = opt(0, "linear warm-up of the learning rates", low=0)
    lr_scale: float = opt(0.8, "multiplies every learning rate", alias=("lr", "learning_rate"), low=0)
    final_lr_ratio: float = opt(0.0, "learning rates at the end, as a share of the peak", low=0, high=1)


@dataclass(frozen=True)
class ChatSFT(Finetune):
    """Supervised finetuning: conversations, only the assistant's tokens count."""

    warmup_steps: int = opt(0, "linear warm-up of the learning rates", low=0)
    warmdown_ratio: float = opt(1.0, "share of the run in which the learning rates fall", low=0, high=1)
    lr_scale: float = opt(0.3, "multiplies every learning rate", alias=("lr", "learning_rate"), low=0)
    final_lr_ratio: float = opt(0.0, "learning rates at the end, as a share of the peak", low=0, high=1)
    mixture: str = opt("sft.jsonl", "tasks, and JSONL or Parquet files in data_dir; NAME:N takes N items")
    source: Literal["base", "mid"] = opt("mid", "stage to start from")
    supervise: Literal["assistant", "all"] = opt("assistant", "tokens that count in the loss")


# ----------------------------------------------------------------------------- whole runs and evaluation


@dataclass(frozen=True)
class Pipeline(Rooted):
    """A whole run, step by step, in one place."""

    recipe: str = opt("laptop", "preset of every step (set by --preset)")
    nproc: int = opt(1, "processes (GPUs) of each training step", low=1)
    dry_run: bool = opt(False, "print the plan and exit")
    chat: bool = opt(True, "end in the chat, if this is a terminal")
    fresh: bool = opt(False, "start again: existing run folders are moved aside")
    embedded_world: bool = opt(False, "train on the embedded world and sit its exams")
    world_seed: int = opt(1, "seed of the embedded world")
    rl: bool = opt(False, "behind SFT, reinforcement learning on problems with checked answers")
    control_items: int = opt(100, "items an exam of the controls (untrained, base only)", low=1)
    minutes_bfloat16: float = opt(0, "estimate for 2 cores with AMX or AVX512-BF16")
    minutes_float32: float = opt(0, "estimate for 2 cores without")
    disk_mib: int = opt(0, "disk that the artifacts take")
    hardware: str = opt("", "hardware that the recipe is meant for")


@dataclass(frozen=True)
class SampleWorld(Places):
    """The embedded world: how much of it to write, and where."""

    data_dir: str = opt("data/world", "folder to write; relative paths are below base_dir")
    world_seed: int = opt(1, "seed of the world, its texts and its exams")
    megabytes: float = opt(20.0, "pretraining text", low=0.01)
    mid_items: int = opt(40_000, "conversations and texts for mid-training", low=1)
    sft_items: int = opt(12_000, "conversations for SFT", low=1)


@dataclass(frozen=True)
class Trained(Common):
    """A model that a stage left."""

    depth: int = opt(20, "depth of the run; only names the default run", low=1)
    source: Literal["base", "mid", "sft", "rl"] = opt("sft", "stage that trained it")


@dataclass(frozen=True)
class ChatEval(Trained):
    """Exams of a chat model."""

    tasks: str = opt("world", "exams: world (of the embedded world), all (of the hub), or some by name")
    exams: str = opt("exams.json", "file of the embedded world's exams, below data_dir")
    problems_exam: str = opt(
        "problems_exam.jsonl", "problems with a `result`, below data_dir; sat with the world's if it is there"
    )
    limit: int | None = opt(None, "items of each exam (default: all)", low=1)
    batch: int = opt(64, "replies of one batch", low=1)
    samples: int = opt(1, "replies to each item; several give pass@k", low=1)
    temperature: float = opt(0.0, "of the replies; 0 = greedy", low=0)
    top_k: int | None = opt(None, "draw replies from the k likeliest tokens", low=1)
    max_tokens: int | None = opt(None, "longest reply (default: the exam's)", low=1)
    sandbox: Literal["strict", "best-effort", "off"] = opt("strict", "how programs of the model are confined")
    untrained: bool = opt(False, "control: random weights of the same architecture")
    compare: tuple[str, str] | None = opt(None, "two item files, A B: how much better B is, and how surely")

    @property
    def result(self) -> str:
        """Name of the results in the stage's `evals/`."""
        if self.untrained:
            name = "untrained" if self.tasks == "world" else "chat_untrained"
        else:
            name = "exams" if self.tasks == "world" else "chat"
        return name if self.samples == 1 else f"{name}_{self.samples}_samples"


@dataclass(frozen=True)
class Track(Rooted):
    """Whose metrics go where."""

    project: str = opt("nanochat", "project of the tracking service")
    online: bool = opt(False, "send them now (needs a network and `wandb login`)")


@dataclass(frozen=True)
class TimeToQuality(Places):
    """Which budgets and seeds of pretraining to compare with the peer's stored rows."""

    budgets: str = opt("499712,999424,1998848", "training tokens, comma separated")
    seeds: int = opt(3, "seeds, from 1", low=1)
    documents: int = opt(197, "validation documents to measure", low=0)


@dataclass(frozen=True)
class Bench(Places):
    """How to measure."""

    json: bool = opt(False, "print one JSON object a line")
    threads: str = opt("1,2", "thread counts, comma separated")
    repetitions: int = opt(7, "counted repetitions of each side", low=1)
    compile: bool = opt(True, "compile both sides")
    rows: int = opt(0, "rows to load (0 = one epoch)", low=0)
    shapes: str = opt("d4,d12", "generate: shapes, comma separated", pattern="(d4|d12)(,(d4|d12))*")
    dtypes: str = opt(
        "float32,bfloat16", "generate: precisions", pattern="(float32|bfloat16)(,(float32|bfloat16))*"
    )
    batches: str = opt("1,4,16,64", "generate: rows of a batch", pattern="[0-9]+(,[0-9]+)*")
    model: str = opt("sft_laptop", "exact, start: run folder of a trained model, relative to base_dir")
    requests: int = opt(1000, "exact: requests", low=1)
    seconds: float = opt(60.0, "serve: how long new requests are sent", low=1)
    clients: int = opt(1000, "serve: clients at once", low=1)
    slots: int = opt(64, "serve: requests that run at once", low=1)
    peers: str = opt("bench_peers", "folder of packages whose names are ours, too, relative to base_dir")

    @property
    def thread_counts(self) -> list[int]:
        return [int(part) for part in self.threads.split(",")]


@dataclass(frozen=True)
class Info(Rooted):
    """How to say what is here."""

    json: bool = opt(False, "print one JSON object")
    self_test: bool = opt(False, "instead: import, tokenizer, an optimizer step on each device; no network")


@dataclass(frozen=True)
class Sampled(Trained):
    """How the next token is chosen."""

    temperature: float = opt(0.6, "0 = always the likeliest token", alias=("temp",), low=0)
    top_k: int = opt(50, "choose among the k likeliest tokens; 0 = all", low=0)
    top_p: float = opt(1.0, "choose among the likeliest tokens that sum to this; 1 = all", low=0, high=1)


@dataclass(frozen=True)
class ChatCLI(Sampled):
    """A conversation in the terminal."""

    prompt: str | None = opt(None, "answer this and exit; - reads it from stdin", alias=("p",))
    max_tokens: int = opt(256, "tokens of a reply at most", low=1)


@dataclass(frozen=True)
class BaseSample(Sampled):
    """Continuations by a model that was not taught to chat."""

    source: Literal["base", "mid", "sft", "rl"] = opt("base", "stage that trained it")
    prompt: str | None = opt(None, "text to continue; - reads one from each line of stdin", alias=("p",))
    seed_tokens: tuple[int, ...] | None = opt(None, "token ids to continue, comma separated, instead of text")
    num_samples: int = opt(1, "continuations of each prompt", alias=("samples",), low=1)
    max_tokens: int = opt(64, "tokens of a continuation at most", alias=("num", "num_generate"), low=1)
    temperature: float = opt(1.0, "0 = always the likeliest token", alias=("temp",), low=0)
