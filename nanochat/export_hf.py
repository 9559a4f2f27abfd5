"""A `classic` model as a folder that transformers loads as its NanoChatForCausalLM (version 5 on).

What it is: weights under transformers' names, `config.json`, the tokenizer with <|bos|> put before each text,
and `check`, which loads the folder and compares logits and ids. What it is not: a way for `modern` models,
whose value embeddings, lambdas, smear and backout that class has not. Writing needs no transformers.
Run: `python -m scripts.export_hf --run d12 --to FOLDER`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from nanochat import hf_tokenizer
from nanochat.common import UsageError, atomic_path, write_json
from nanochat.config import GPTConfig
from nanochat.gpt import GPT
from nanochat.tokenizer import Tokenizer

ACTIVATIONS = {"relu2": "relu2", "gelu": "gelu", "silu": "silu"}
ATTENTION = {"q": "q_proj", "k": "k_proj", "v": "v_proj", "o": "o_proj"}
CLOSE = 1e-4  # logits in float32; sums in another order differ by a few 1e-6
BOS, EOS = "<|bos|>", "<|assistant_end|>"


def refuse(config: GPTConfig) -> None:
    """UsageError for a model that the class cannot hold."""
    if config.arch != "classic":
        raise UsageError(
            f"this model is {config.arch}; transformers' NanoChat class is the classic architecture only. "
            "Train with --arch classic to export"
        )
    if config.activation not in ACTIVATIONS:
        raise UsageError(
            f"transformers' NanoChat class has no {config.activation}; it has {', '.join(ACTIVATIONS)}"
        )


def hf_config(config: GPTConfig, tokenizer: Tokenizer) -> dict[str, Any]:
    """What `config.json` holds."""
    return {
        "architectures": ["NanoChatForCausalLM"], "model_type": "nanochat", "dtype": "float32",
        "vocab_size": config.vocab_size, "hidden_size": config.width,
        "intermediate_size": config.mlp_width, "num_hidden_layers": config.depth,
        "num_attention_heads": config.heads, "num_key_value_heads": config.kv_heads,
        "max_position_embeddings": config.context, "hidden_act": ACTIVATIONS[config.activation],
        "attention_dropout": 0.0, "attention_bias": False, "rms_norm_eps": 1e-6, "use_cache": True,
        "rope_parameters": {"rope_type": "default", "rope_theta": config.rope_base},
        "final_logit_softcapping": config.softcap or None, "tie_word_embeddings": config.tie_embeddings,
        "bos_token_id": tokenizer.bos_id, "eos_token_id": [tokenizer.special(EOS), tokenizer.bos_id],
        "pad_token_id": tokenizer.special(EOS),
    }  # fmt: skip


def hf_weights(model: GPT) -> Iterator[tuple[str, Tensor]]:
    """(name there, weight); rows that only pad the vocabulary are left out."""
    size = model.config.vocab_size
    yield "model.embed_tokens.weight", model.embed.weight[:size]
    if model.lm_head is not None:
        yield "lm_head.weight", model.lm_head.weight[:size]
    for i, block in enumerate(model.blocks):
        for ours, theirs in ATTENTION.items():
            yield f"model.layers.{i}.self_attn.{theirs}.weight", getattr(block.attn, ours).weight
        yield f"model.layers.{i}.mlp.fc1.weight", block.mlp.up.weight
        yield f"model.layers.{i}.mlp.fc2.weight", block.mlp.down.weight


def export(model: GPT, tokenizer: Tokenizer, folder: Path) -> None:
    """Write the folder. UsageError if the class cannot hold the model."""
    refuse(model.config)
    weights = {name: weight.detach().float().cpu().contiguous() for name, weight in hf_weights(model)}
    with atomic_path(folder / "model.safetensors") as temp:
        save_file(weights, temp, {"format": "pt"})
    write_json(folder / "tokenizer.json", {**hf_tokenizer.to_json(tokenizer), **_begin_with_bos(tokenizer)})
    names = {"bos_token": BOS, "eos_token": EOS, "pad_token": EOS}
    facts = {"model_max_length": model.config.context, "clean_up_tokenization_spaces": False}
    write_json(
        folder / "tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast", **names, **facts}
    )
    write_json(folder / "config.json", hf_config(model.config, tokenizer))


def _begin_with_bos(tokenizer: Tokenizer) -> dict[str, Any]:
    """The part of `tokenizer.json` that puts <|bos|> before a text, as in training."""
    first: dict[str, Any] = {"SpecialToken": {"id": BOS, "type_id": 0}}
    a, b = ({"Sequence": {"id": name, "type_id": 0}} for name in "AB")
    known = {BOS: {"id": BOS, "ids": [tokenizer.bos_id], "tokens": [BOS]}}
    template = {"single": [first, a], "pair": [first, a, b], "special_tokens": known}
    return {"post_processor": {"type": "TemplateProcessing", **template}}


@torch.no_grad()
def check(model: GPT, tokenizer: Tokenizer, folder: Path, texts: Sequence[str]) -> float:
    """Load the folder with transformers and return the largest difference of a logit, over whole contexts.

    Raises UsageError if ids differ, or logits by more than `CLOSE`: then the folder is not this model.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    theirs = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True, dtype=torch.float32).eval()
    their_tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    for text in texts:
        ids = [tokenizer.bos_id, *tokenizer.encode(text)]
        if their_tokenizer(text)["input_ids"] != ids:
            raise UsageError(f"{folder}: transformers gives other ids for {text!r:.80}")
    rng = torch.Generator().manual_seed(0)
    ids = torch.randint(model.config.vocab_size, (2, model.config.context), generator=rng)
    device = model.embed.weight.device
    off = (model(ids.to(device)).cpu() - theirs(input_ids=ids).logits).abs().max().item()
    if off > CLOSE:
        raise UsageError(f"{folder}: logits differ by {off:.1e}, more than {CLOSE:g}")
    return off
