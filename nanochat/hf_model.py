"""A model of transformers under our evaluations, for comparison: likelihoods, bits per byte, continuations.

What it is: adaptors around `AutoModelForCausalLM` and `AutoTokenizer` of a local folder (nothing is
fetched, and no code of the folder is run). Rows beyond the model's maximum lose their left end, as in
nanochat. What it is not: fast (each row is read whole) or an exporter (`export_hf.py`). Needs the extra
`export`.
Run: `python -m scripts.base_eval --hf FOLDER --evals core`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from nanochat import distributed
from nanochat.common import UsageError, base_dir
from nanochat.config_eval import BaseEval
from nanochat.distributed import World
from nanochat.evaluation import BASE_PROMPTS, SAMPLE_TOKENS
from nanochat.kv_cache import right_pad
from nanochat.likelihood import Spans, SpanScore, gathered
from nanochat.probe import pick_dtype, pick_threads

LOGITS = 1 << 27  # logits that are held at a time: half a GiB
UNLIMITED = 1 << 20  # a larger maximum is transformers' way of saying that there is none


class HFTokenizer:
    """`encode` and `decode` as ours have them; a text never starts with special tokens."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        first = (tokenizer.bos_token_id, tokenizer.eos_token_id)
        found = next((token for token in first if token is not None), None)
        if found is None:
            raise UsageError("the tokenizer has neither a bos nor an eos token to begin a row with")
        self.bos_id = int(found)  # GPT-2's documents are separated by eos

    def encode(self, text: list[str]) -> list[list[int]]:
        return self._tokenizer(text, add_special_tokens=False)["input_ids"]  # type: ignore[no-any-return]

    def decode(self, ids: Sequence[int]) -> str:
        return str(self._tokenizer.decode(ids))


class HFModel(nn.Module):
    """A scorer (`likelihood.Scorer`) and, for `document_bpb`, a model with a context and a loss."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        known = (getattr(model.config, name, None) for name in ("max_position_embeddings", "n_positions"))
        self.crop_to: int | None = next((n for n in known if n and n < UNLIMITED), None)
        self.config = SimpleNamespace(context=self.crop_to or 2048)
        self.tokens_fed = 0

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    def forward(self, ids: Tensor) -> Tensor:
        """(B, T) right-padded ids -> (B, T, V) float32 logits. Padding is behind what counts: no mask."""
        self.tokens_fed += ids.numel()
        return self.model(input_ids=ids, use_cache=False).logits.float()  # type: ignore[no-any-return]

    @torch.no_grad()
    def score(self, group: Sequence[Spans]) -> list[list[SpanScore]]:
        """Scores of each question's rows."""
        flat = [(row, start) for spans in group for row, start in zip(spans.rows, spans.starts, strict=True)]
        each = max(1, LOGITS // (self.model.config.vocab_size * max(len(row) for row, _ in flat)))
        parts = (self._score(flat[i : i + each]) for i in range(0, len(flat), each))
        scores = iter([score for part in parts for score in part])
        return [[next(scores) for _ in spans.rows] for spans in group]

    def _score(self, rows: Sequence[tuple[Sequence[int], int]]) -> list[SpanScore]:
        logits = self(right_pad([row[:-1] for row, _ in rows], self.device))
        log_probs, hits = [], []
        for i, (row, start) in enumerate(rows):
            scored, targets = (
                logits[i, start - 1 : len(row) - 1],
                torch.tensor(row[start:], device=self.device),
            )
            log_probs.append(scored.log_softmax(dim=-1).gather(1, targets[:, None])[:, 0])
            hits.append(scored.argmax(dim=-1) == targets)
        return gathered([row[start:] for row, start in rows], torch.cat(log_probs), torch.cat(hits))

    @torch.no_grad()
    def loss_sum(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """Summed cross-entropy in nats of (B, T) targets; -1 = not counted."""
        logits = self(inputs).flatten(0, 1)
        return nn.functional.cross_entropy(logits, targets.flatten(), ignore_index=-1, reduction="sum")

    @torch.no_grad()
    def continued(self, ids: list[int], tokens: int) -> list[int]:
        """The greedy continuation of a row, without it."""
        row = torch.tensor([ids], device=self.device)
        kept = self.model.generate(
            row, attention_mask=torch.ones_like(row), max_new_tokens=tokens, do_sample=False
        )
        return kept[0, len(ids) :].tolist()  # type: ignore[no-any-return]


def samples(model: HFModel, tokenizer: HFTokenizer) -> list[dict[str, str]]:
    """Greedy continuations of the prompts that our models get."""
    found = []
    for prompt in BASE_PROMPTS:
        ids = [tokenizer.bos_id, *tokenizer.encode([prompt])[0]]
        found.append({"prompt": prompt, "text": tokenizer.decode(model.continued(ids, SAMPLE_TOKENS))})
    return found


@contextlib.contextmanager
def loaded(config: BaseEval) -> Iterator[tuple[World, HFModel, HFTokenizer, Path]]:
    """(world, model, tokenizer, folder for results) of `config.hf`; ranks joined and left."""
    assert config.hf is not None
    place = Path(config.hf).expanduser()
    if not (place / "config.json").is_file():
        raise UsageError(f"--hf {place} is no folder with a config.json; save a transformers model there")
    try:
        from transformers import AutoModelForCausalLM, AutoTokenizer
    except ImportError as error:
        raise UsageError("--hf needs transformers: pip install 'nanochat-hpc[export]'") from error
    world = distributed.init(config.device)
    try:
        torch.set_num_threads(pick_threads(config.threads))
        dtype, _ = pick_dtype(config.dtype, world.device)
        local: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
        model = AutoModelForCausalLM.from_pretrained(place, dtype=dtype, **local).to(world.device).eval()
        tokenizer = HFTokenizer(AutoTokenizer.from_pretrained(place, **local))
        yield world, HFModel(model), tokenizer, base_dir(config.base_dir) / f"hf_{config.run or place.name}"
    finally:
        distributed.close()
