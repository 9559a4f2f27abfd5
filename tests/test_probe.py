"""The probes: what is asked for is given, and measuring leaves the process as it was."""

from __future__ import annotations

import os

import pytest
import torch

from nanochat import probe
from nanochat.common import bfloat16_units

CPU = torch.device("cpu")


@pytest.mark.parametrize("name", ["float32", "bfloat16"])
def test_dtype_as_asked(name: str) -> None:
    assert probe.pick_dtype(name, CPU) == (getattr(torch, name), "as asked")


def test_auto_dtype_is_measured_only_where_the_cpu_has_bfloat16() -> None:
    """A bfloat16 product that the CPU must emulate can take seconds."""
    dtype, why = probe.pick_dtype("auto", CPU)
    if bfloat16_units():
        ratio = float(why.removeprefix("bfloat16 products measured ").removesuffix("x float32"))
        assert dtype == (torch.bfloat16 if ratio > 1 else torch.float32) or ratio == 1.0
    else:
        assert dtype == torch.float32 and "neither AMX nor AVX512-BF16" in why


def test_auto_dtype_on_other_devices_is_float32() -> None:
    assert probe.pick_dtype("auto", torch.device("mps"))[0] == torch.float32


def test_threads_as_asked() -> None:
    assert probe.pick_threads(3) == 3
    with pytest.raises(ValueError, match="threads 0: use 1 or more"):
        probe.pick_threads(0)


def test_threads_of_the_environment_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert probe.pick_threads(None) == torch.get_num_threads()


def test_threads_are_probed_and_restored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    before = torch.get_num_threads()
    assert 1 <= probe.pick_threads(None) <= (os.cpu_count() or 1)
    assert torch.get_num_threads() == before
