"""The model against slow twins and against transformers. Run: `pytest tests/test_gpt.py`."""

from __future__ import annotations

import math
from typing import Any

import pytest
import reference
import torch
import torch.nn.functional as F
from torch import Tensor

from nanochat import cross_entropy, optimizers
from nanochat.attention import _masked, attend
from nanochat.config import BaseTrain, GPTConfig
from nanochat.cross_entropy import softcap_cross_entropy
from nanochat.distributed import World
from nanochat.gpt import GPT
from nanochat.schedule import Schedule

ALONE = World(0, 0, 1, torch.device("cpu"))
T = 150  # beyond the shortest window of 128, and no multiple of it
SHAPE: dict[str, Any] = {
    "vocab_size": 300, "depth": 3, "width": 64, "heads": 4, "kv_heads": 4, "context": 160,
    "window_pattern": "SSSL",
}  # fmt: skip
CLASSIC = {"arch": "classic", "window_pattern": "L"}
OPTIONS = {
    "modern": {},
    "classic": CLASSIC,
    "full-windows": {"window_pattern": "L"},
    "tied": {"tie_embeddings": True},
    "tied-classic": {"tie_embeddings": True, **CLASSIC},
    "mlp-3": {"mlp_ratio": 3.0},
    "mlp-2.5": {"mlp_ratio": 2.5},
    "gqa-1-to-4": {"kv_heads": 1},
    "gelu": {"activation": "gelu"},
    "silu": {"activation": "silu"},
    "swiglu": {"activation": "swiglu"},
    "no-softcap": {"softcap": 0.0},
    "rope-base": {"rope_base": 500.0},
    "depth-1": {"depth": 1},
    "depth-2": {"depth": 2},
    "conversation": {
        "tie_embeddings": True,
        "mlp_ratio": 3.0,
        "kv_heads": 1,
        "activation": "gelu",
        "softcap": 0.0,
    },
}
every_option = pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
INITS = ("modern", "classic", "tied", "tied-classic", "swiglu", "conversation")
every_init = pytest.mark.parametrize("options", [OPTIONS[name] for name in INITS], ids=INITS)


def make(dtype: torch.dtype = torch.float32, **options: Any) -> GPT:
    return GPT(GPTConfig(**{**SHAPE, **options}), dtype)


def random_model(dtype: torch.dtype = torch.float32, **options: Any) -> GPT:
    """A model whose every parameter matters (a fresh one starts as the identity)."""
    model = make(dtype, **options).init_weights(0)
    rng = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if p.ndim == 2:
                p.normal_(0, 1 if "embed" in name else 1.5 * p.size(1) ** -0.5, generator=rng)
            else:
                p.add_(0.3 * torch.randn(p.shape, generator=rng))
    return model


def random_ids(*shape: int, vocab: int = SHAPE["vocab_size"], seed: int = 2) -> Tensor:
    return torch.randint(vocab, shape, generator=torch.Generator().manual_seed(seed))


# ----------------------------------------------------------------------------- the whole model


@every_option
def test_model_equals_the_twin(options: dict[str, Any]) -> None:
    """Logits and loss, with grouped heads, windows that bind, and padded rows of the vocabulary."""
    model, ids = random_model(**options), random_ids(T + 1)
    want = reference.logits(model, ids[:-1])
    with torch.no_grad():
        got = model(ids[None, :-1])[0]
        loss = model.loss_sum(ids[None, :-1], ids[None, 1:])
    assert got.dtype == torch.float32 and got.shape == (T, SHAPE["vocab_size"])
    torch.testing.assert_close(got.double(), want, atol=2e-4, rtol=2e-4)
    torch.testing.assert_close(
        loss.double(), F.cross_entropy(want, ids[1:], reduction="sum"), rtol=1e-5, atol=0
    )


@pytest.mark.parametrize("name", ["modern", "classic"])
def test_bfloat16_is_near_the_twin(name: str) -> None:
    model, ids = random_model(torch.bfloat16, **OPTIONS[name]), random_ids(T)
    want = reference.logits(model, ids)
    got = model(ids[None])[0]
    assert got.dtype == torch.float32 and model.embed.weight.dtype == torch.float32
    assert (got - want).norm() / want.norm() < 0.05


@pytest.mark.parametrize("name", ["modern", "classic"])
def test_rows_beyond_the_context(name: str) -> None:
    """They are read whole, each layer seeing what its window holds; shorter rows stay what they are."""
    model = random_model(**{**OPTIONS[name], "context": 150})
    ids = random_ids(220)
    with torch.no_grad():
        before = model(ids[None, :150])
        model.reach(220)
        model.reach(30)
        got = model(ids[None])[0]
        assert torch.equal(model(ids[None, :150]), before)
    torch.testing.assert_close(got.double(), reference.logits(model, ids), atol=2e-4, rtol=2e-4)


def test_windows_bind() -> None:
    """The twin comparison would be empty if no window ever hid a key."""
    ids = random_ids(T)
    wide, narrow = random_model(window_pattern="L"), random_model(window_pattern="SSSL")
    torch.testing.assert_close(wide(ids[None, :128]), narrow(ids[None, :128]))
    assert (wide(ids[None])[0, -1] - narrow(ids[None])[0, -1]).abs().max() > 1e-3


@every_option
def test_every_option_trains(options: dict[str, Any]) -> None:
    """The loss of one batch falls, and no parameter is left out of the graph or of the optimizers."""
    model = make(**{"context": 32, **options}).init_weights(0)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    tuned = optimizers.build(model, BaseTrain(), ALONE, Schedule(100, warmup=0), 2**16, 0.1)
    ids, losses = random_ids(4, 33), []
    for step in range(8):
        loss = model.loss_sum(ids[:, :-1], ids[:, 1:]) / (4 * 32)
        loss.backward()
        tuned.step(step)
        model.zero_grad(set_to_none=True)
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0] and all(map(math.isfinite, losses)), losses
    still = [name for name, p in model.named_parameters() if torch.equal(p, before[name])]
    assert not still
    assert all(p.isfinite().all() for p in model.parameters())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["modern", "classic"])
def test_compiled_equals_eager(name: str) -> None:
    ids = random_ids(2, T + 1)
    results = []
    for compiled in (False, True):
        model = random_model(**OPTIONS[name])
        loss_sum = torch.compile(model.loss_sum, dynamic=False) if compiled else model.loss_sum
        loss = loss_sum(ids[:, :-1], ids[:, 1:])
        loss.backward()
        results.append([loss.detach(), *(p.grad for p in model.parameters())])
    torch.testing.assert_close(results[1], results[0], rtol=1e-3, atol=1e-3)


# ----------------------------------------------------------------------------- initialisation


@every_init
def test_first_loss_is_that_of_a_guess(options: dict[str, Any]) -> None:
    """ln V within 1%, at a width where tied embeddings could give themselves away."""
    model = make(**{**options, "vocab_size": 4096, "width": 512, "depth": 2}).init_weights(0)
    ids = random_ids(1, 129, vocab=4096)
    with torch.no_grad():
        loss = model.loss_sum(ids[:, :-1], ids[:, 1:]).item() / 128
    assert loss == pytest.approx(math.log(4096), rel=0.01)


@every_init
def test_init_sets_every_tensor_by_the_seed(options: dict[str, Any]) -> None:
    """A model from the meta device has no values of its own; whatever lies in its memory must not matter."""
    with torch.device("meta"):
        model = make(**options)
    model.to_empty(device="cpu")
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    for tensor in tensors.values():
        tensor.data.fill_(math.nan)
    model.init_weights(7)
    twin, other = make(**options).init_weights(7), make(**options).init_weights(8)
    for name, tensor in {**dict(twin.named_parameters()), **dict(twin.named_buffers())}.items():
        assert tensors[name].isfinite().all(), name
        assert torch.equal(tensors[name], tensor), name
    assert not torch.equal(other.embed.weight, twin.embed.weight)


# ----------------------------------------------------------------------------- sizes


def empty(depth: int, vocab_size: int, **options: Any) -> GPT:
    with torch.device("meta"):
        return GPT(BaseTrain(depth=depth, **options).gpt_config(vocab_size))


# Published totals and training FLOPs a token of nanochat (July 2026, vocabulary of 32,768).
MODERN = {
    4: (36_700_242, 8.02e7), 6: (73_531_538, 1.68e8), 8: (125_829_354, 2.96e8), 12: (286_261_730, 7.60e8),
    16: (536_871_738, 1.58e9), 20: (896_533_746, 2.89e9), 24: (1_384_122_122, 4.78e9),
    26: (1_681_786_938, 5.99e9), 28: (2_018_511_234, 7.37e9), 32: (2_818_575_450, 1.08e10),
}  # fmt: skip


@pytest.mark.parametrize("depth", MODERN)
def test_modern_has_the_published_size(depth: int) -> None:
    model = empty(depth, 32_768)
    counts = model.count_parameters()
    width = 64 * depth
    total, flops = MODERN[depth]
    assert counts["total"] == total
    assert counts["matrix"] == 12 * depth * width**2
    assert counts["scaling"] == 12 * depth * width**2 + 32_768 * width
    assert model.flops_per_token() == pytest.approx(flops, rel=0.006)


# The same of October 2025 (vocabulary of 65,536).
CLASSICS = {
    4: 36_700_160, 8: 92_274_688, 12: 185_597_952, 16: 335_544_320, 20: 560_988_160, 26: 1_081_999_360,
    32: 1_879_048_192, 34: 2_217_082_880,
}  # fmt: skip


@pytest.mark.parametrize("depth", CLASSICS)
def test_classic_has_the_published_size(depth: int) -> None:
    assert empty(depth, 65_536, arch="classic").count_parameters()["total"] == CLASSICS[depth]


def test_tied_embeddings_are_one_parameter() -> None:
    tied, untied = empty(4, 32_768, tie_embeddings=True), empty(4, 32_768)
    assert tied.lm_head is None and "head" not in tied.roles()
    sizes = [model.count_parameters() for model in (tied, untied)]
    assert sizes[1]["total"] - sizes[0]["total"] == 32_768 * 256
    assert sizes[0]["scaling"] == sizes[1]["scaling"]


@pytest.mark.parametrize("name", ["modern", "classic", "tied", "swiglu"])
def test_each_parameter_has_one_role(name: str) -> None:
    model = make(**OPTIONS[name])
    listed = [id(p) for role in model.roles().values() for p in role.values()]
    assert sorted(listed) == sorted(map(id, model.parameters()))
    assert all(p.ndim == 2 for p in model.roles()["matrix"].values())


# ----------------------------------------------------------------------------- attention


@pytest.mark.parametrize("heads", [(4, 4), (4, 1), (6, 2)], ids=str)
@pytest.mark.parametrize(
    ("length", "window"),
    [(64, 16), (70, 16), (33, 16), (17, 16), (20, 1), (5, 4), (16, 16), (12, 16), (7, 100), (1, 1)],
)
def test_attention_equals_softmax(length: int, window: int, heads: tuple[int, int]) -> None:
    """Values and gradients: windows that divide the length or not, that are one, that see everything."""
    rng = torch.Generator().manual_seed(length)
    inputs = [
        torch.randn(2, h, length, 8, generator=rng, requires_grad=True)
        for h in (heads[0], heads[1], heads[1])
    ]
    upstream = torch.randn(2, heads[0], length, 8, generator=rng)
    results = []
    for attention in (attend, reference.attention):
        y = attention(*inputs, window)
        results.append([y, *torch.autograd.grad(y, inputs, upstream)])
    torch.testing.assert_close(*results, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("window", [1, 16, 100])
def test_the_mask_where_nothing_is_compiled(window: int) -> None:
    rng = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, h, 50, 8, generator=rng) for h in (4, 2, 2))
    torch.testing.assert_close(_masked(q, k, v, window), reference.attention(q, k, v, window))


@pytest.mark.gpu
def test_attention_on_a_gpu_equals_softmax() -> None:
    rng = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, h, 300, 64, generator=rng) for h in (4, 2, 2))
    got = attend(q.cuda(), k.cuda(), v.cuda(), 128).cpu()
    torch.testing.assert_close(got, reference.attention(q, k, v, 128), atol=5e-3, rtol=5e-3)


# ----------------------------------------------------------------------------- cross-entropy


def head_problem(tokens: int = 200, vocab: int = 300, scale: float = 1.0) -> tuple[Tensor, Tensor, Tensor]:
    """(N, C) hidden states, (V, C) weights, (N,) targets of which a fifth do not count."""
    rng = torch.Generator().manual_seed(0)
    hidden = torch.randn(tokens, 32, generator=rng)
    weight = scale * torch.randn(vocab, 32, generator=rng)
    targets = torch.randint(vocab, (tokens,), generator=rng)
    return hidden, weight, torch.where(torch.rand(tokens, generator=rng) < 0.2, -1, targets)


def loss_and_gradients(
    loss_of: Any, hidden: Tensor, weight: Tensor, targets: Tensor, softcap: float
) -> list[Tensor]:
    leaves = [hidden.detach().requires_grad_(), weight.detach().requires_grad_()]
    loss = loss_of(*leaves, targets, softcap)
    return [
        loss.detach(),
        *torch.autograd.grad(loss / 7, leaves),
    ]  # not 1: the incoming gradient must be used


@pytest.mark.parametrize("softcap", [15.0, 0.0, 1.0, 100.0])
@pytest.mark.parametrize("scale", [0.1, 1.0, 100.0])
def test_cross_entropy_equals_whole_logits(
    softcap: float, scale: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In four chunks, the last one not full; logits up to 2,000."""
    monkeypatch.setattr(cross_entropy, "CHUNK_BYTES", 64 * 4 * 300)
    hidden, weight, targets = head_problem(scale=scale)
    got = loss_and_gradients(softcap_cross_entropy, hidden, weight, targets, softcap)
    want = loss_and_gradients(reference.cross_entropy, hidden.double(), weight.double(), targets, softcap)
    assert [x.dtype for x in got] == [torch.float32] * 3
    for ours, theirs in zip(got, want, strict=True):
        torch.testing.assert_close(ours.double(), theirs, rtol=1e-4, atol=2e-5 * scale)
    with torch.no_grad():
        torch.testing.assert_close(softcap_cross_entropy(hidden, weight, targets, softcap), got[0])


@pytest.mark.parametrize("tokens", [1, 63, 64, 65, 128])
def test_cross_entropy_at_the_borders_of_chunks(tokens: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cross_entropy, "CHUNK_BYTES", 0)  # chunks are never below 64 rows
    problem = head_problem(tokens)
    got = loss_and_gradients(softcap_cross_entropy, *problem, 15.0)
    torch.testing.assert_close(
        got, loss_and_gradients(reference.cross_entropy, *problem, 15.0), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("softcap", [15.0, 0.0])
def test_cross_entropy_of_nothing_is_zero(softcap: float) -> None:
    hidden, weight, targets = head_problem()
    ignored = torch.full_like(targets, -1)
    for result in loss_and_gradients(softcap_cross_entropy, hidden, weight, ignored, softcap):
        assert (result == 0).all()
    with torch.no_grad():
        assert softcap_cross_entropy(hidden, weight, ignored, softcap) == 0


@pytest.mark.parametrize("softcap", [15.0, 0.0])
def test_cross_entropy_in_bfloat16(softcap: float) -> None:
    """Hidden states are rounded, sums and the weight's gradient are not."""
    hidden, weight, targets = head_problem()
    hidden, weight = hidden.bfloat16(), weight.bfloat16().float()
    got = loss_and_gradients(softcap_cross_entropy, hidden, weight, targets, softcap)
    want = loss_and_gradients(reference.cross_entropy, hidden.double(), weight.double(), targets, softcap)
    assert [x.dtype for x in got] == [torch.float32, torch.bfloat16, torch.float32]
    for ours, theirs, limit in zip(got, want, (2e-3, 2e-2, 2e-2), strict=True):
        assert (ours - theirs).norm() / theirs.norm() < limit
