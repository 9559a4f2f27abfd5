"""A classic model in transformers: the same logits and ids; in lm-evaluation-harness: the same choices."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import core_harness
import core_twin
import pytest
import torch
from test_core_eval import small_model

from nanochat import export_hf
from nanochat.checkpoint_manager import load_model
from nanochat.common import UsageError
from nanochat.config import GPTConfig
from nanochat.gpt import GPT
from nanochat.tokenizer import Tokenizer

TEXTS = ("the cat sat", " 12 dogs\n\n\tdon't", "naïve 日本")


def classic(**options: Any) -> GPT:
    model = small_model("classic")
    found = GPT(GPTConfig(**{**vars(model.config), **options})).init_weights(0)
    rng = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in found.parameters():
            p.normal_(0, p.size(1) ** -0.5, generator=rng)
    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [{}, {"tie_embeddings": True, "softcap": 0.0, "kv_heads": 2, "activation": "gelu", "mlp_ratio": 3.0}],
    ids=["plain", "tied"],
)
def test_transformers_gives_the_same_logits(
    options: dict[str, Any], tokenizer: Tokenizer, tmp_path: Path
) -> None:
    pytest.importorskip("transformers", minversion="5.0")
    model = classic(**options)
    export_hf.export(model, tokenizer, tmp_path)
    assert export_hf.check(model, tokenizer, tmp_path, TEXTS) < 1e-5
    with torch.no_grad():
        model.blocks[0].attn.q.weight[0, 0] += 1
    with pytest.raises(UsageError, match="logits differ by"):
        export_hf.check(model, tokenizer, tmp_path, TEXTS)


@pytest.mark.slow
@pytest.mark.usefixtures("harness")
def test_the_harness_reads_the_same_likelihoods(test_data: Path, tmp_path: Path) -> None:
    """12 rows of three tasks; all rows: `python tests/core_harness.py`."""
    base = core_twin.trained(test_data, tmp_path, "classic", context=1024)  # ten shots fit
    model, tokenizer, _ = load_model(base, "base", "classic", torch.device("cpu"))
    found = core_harness.run(model, tokenizer, test_data / "eval_bundle", 12, tmp_path)
    print(*found, sep="\n")
    assert core_harness.verdict(found) == []


def test_what_the_class_cannot_hold_is_refused(tokenizer: Tokenizer, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"this model is modern.*--arch classic"):
        export_hf.export(small_model("modern"), tokenizer, tmp_path)
    with pytest.raises(UsageError, match="has no swiglu"):
        export_hf.export(classic(activation="swiglu"), tokenizer, tmp_path)
    assert not list(tmp_path.iterdir())
