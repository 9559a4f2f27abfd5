"""Validation loss and bits per byte, against sums over single tokens."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from nanochat.config import GPTConfig
from nanochat.dataloader import Batch
from nanochat.distributed import World
from nanochat.gpt import GPT
from nanochat.loss_eval import document_bpb, evaluate_loss
from nanochat.tokenizer import Tokenizer, split_pattern

ALONE = World(0, 0, 1, torch.device("cpu"))
CONTEXT = 16


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    """Bytes and two longer tokens, so that tokens and bytes differ."""
    return Tokenizer([bytes([i]) for i in range(256)] + [b"th", b"the"], split_pattern())


@pytest.fixture(scope="module")
def model(tokenizer: Tokenizer) -> GPT:
    config = GPTConfig(
        vocab_size=tokenizer.vocab_size, depth=1, width=32, heads=2, kv_heads=2, context=CONTEXT
    )
    made = GPT(config).init_weights(0)
    with torch.no_grad():
        for p in made.parameters():
            p.add_(0.3 * torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel())))
    return made


@torch.no_grad()
def losses(model: GPT, inputs: Tensor, targets: Tensor) -> Tensor:
    """(B, T) nats of each target; 0 where it is -1."""
    return F.cross_entropy(model(inputs).mT, targets, ignore_index=-1, reduction="none")


def test_special_tokens_and_ignored_targets_are_not_counted(model: GPT, tokenizer: Tokenizer) -> None:
    token_bytes = torch.from_numpy(tokenizer.token_bytes)
    rng = torch.Generator().manual_seed(0)
    batches = []
    for _ in range(3):
        inputs = torch.randint(tokenizer.vocab_size, (2, CONTEXT), generator=rng)
        targets = torch.randint(tokenizer.vocab_size, (2, CONTEXT), generator=rng)
        targets[:, :3], targets[:, 3] = -1, tokenizer.bos_id
        batches.append(Batch(inputs, targets, {}, {}))
    nats = size = tokens = 0.0
    for batch in batches:
        for loss, target in zip(
            losses(model, batch.inputs, batch.targets).flatten(), batch.targets.flatten(), strict=True
        ):
            if target >= 0 and token_bytes[target] > 0:
                nats, size, tokens = nats + float(loss), size + int(token_bytes[target]), tokens + 1
    got = evaluate_loss(model, batches, token_bytes, ALONE)
    want = {"val_loss": nats / tokens, "val_bpb": nats / math.log(2) / size, "val_tokens": tokens}
    assert got == pytest.approx(want, rel=1e-5)
    assert 0 < tokens < 3 * 2 * (CONTEXT - 4) + 1


def test_nothing_to_count_is_refused(model: GPT, tokenizer: Tokenizer) -> None:
    empty = Batch(torch.zeros(1, 4, dtype=torch.int64), torch.full((1, 4), -1), {}, {})
    for batches in ([], [empty]):
        with pytest.raises(ValueError, match="no counted token"):
            evaluate_loss(model, batches, torch.from_numpy(tokenizer.token_bytes), ALONE)


@pytest.mark.parametrize("batch", [1, 2, 16])
def test_every_token_of_a_document_counts_once(model: GPT, tokenizer: Tokenizer, batch: int) -> None:
    """Documents of many lengths, those of whole windows among them, whatever they are batched with."""
    documents = ["the cat", "x" * CONTEXT, "y" * (CONTEXT + 1), "the other " * 9, "z", "é" * 20]
    nats = 0.0
    for text in documents:
        row = torch.tensor([tokenizer.bos_id, *tokenizer.encode(text)])
        for start in range(0, len(row) - 1, CONTEXT):
            window = row[start : start + CONTEXT + 1]
            nats += float(losses(model, window[None, :-1], window[None, 1:]).sum())
    size = sum(len(text.encode()) for text in documents)
    got = document_bpb(model, tokenizer, documents, batch)
    want = {"document_bpb": nats / math.log(2) / size, "bytes": size, "documents": len(documents)}
    assert got == pytest.approx(want, rel=1e-5)
