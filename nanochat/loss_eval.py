"""Validation: mean loss and bits per byte, from the raw bytes of each token.

Bits per byte = sum of nats over counted targets / (ln 2 * sum of their bytes). Special tokens have no
bytes and are not counted, so the figure does not depend on the vocabulary. What it is not: task
accuracy (`tasks/`). Run: `python -m scripts.base_loss`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from nanochat.dataloader import Batch
from nanochat.distributed import World
from nanochat.gpt import GPT
from nanochat.tokenizer import Tokenizer


@torch.no_grad()
def evaluate_loss(
    model: GPT, batches: Iterable[Batch], token_bytes: Tensor, world: World
) -> dict[str, float]:
    """`val_loss` (nats a counted token), `val_bpb` (bits a byte) over this rank's batches, summed over ranks.

    token_bytes (V,): bytes of each id, 0 for special tokens.
    """
    totals = torch.zeros(3, dtype=torch.float64, device="cpu")  # nats, tokens, bytes
    for batch in batches:
        size = token_bytes.to(batch.targets.device)[batch.targets.clamp_min(0)]
        targets = torch.where(size > 0, batch.targets, -1)
        counted = targets >= 0
        nats = model.loss_sum(batch.inputs, targets)
        totals += torch.tensor(
            [nats.item(), counted.sum().item(), (size * counted).sum().item()], dtype=torch.float64
        )
    nats, tokens, size_bytes = world.sum(totals.float().to(world.device)).tolist()
    if tokens == 0:
        raise ValueError(
            "the validation data has no counted token; give it more text or a larger --eval-tokens"
        )
    return {
        "val_loss": nats / tokens,
        "val_bpb": nats / (math.log(2) * max(1.0, size_bytes)),
        "val_tokens": tokens,
    }


@torch.no_grad()
def document_bpb(
    model: GPT, tokenizer: Tokenizer, documents: Sequence[str], batch: int = 16
) -> dict[str, float]:
    """Bits per byte of whole documents, independent of any loader, and how many bytes they were.

    Each document (BOS + ids) is cut in windows of `context` targets; every target counts once.
    """
    context, device = model.config.context, next(model.parameters()).device
    windows = []
    for ids in tokenizer.encode(list(documents)):
        row = [tokenizer.bos_id, *ids]
        windows += [row[start : start + context + 1] for start in range(0, len(row) - 1, context)]
    windows.sort(key=len)
    nats = 0.0
    for start in range(0, len(windows), batch):
        group = windows[start : start + batch]
        inputs = torch.full((len(group), len(group[-1]) - 1), tokenizer.bos_id, device=device)
        targets = torch.full_like(inputs, -1)
        for i, window in enumerate(group):
            inputs[i, : len(window) - 1] = torch.tensor(window[:-1])
            targets[i, : len(window) - 1] = torch.tensor(window[1:])
        nats += model.loss_sum(inputs, targets).item()
    size = sum(len(document.encode()) for document in documents)
    return {"document_bpb": nats / (math.log(2) * size), "bytes": size, "documents": len(documents)}
