"""The training loop, the only one.

What it is: accumulate, step, log, evaluate, sample, save, stop, resume. It is handed a `Stage` and
never asks which one it has (`stages.py` says what differs). Everything that continues a run is saved:
weights, optimizer state, the position in the data after the last batch that was consumed, and the
scores so far; schedules are pure functions of the step and there is no hidden random state, so a
resumed run repeats the undisturbed one bit for bit (same machine, ranks and threads).
What it is not: argument parsing or data. Run: `pytest tests/test_trainer.py`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from nanochat import checkpoint_manager
from nanochat.common import UsageError, print0, read_json
from nanochat.config import Training
from nanochat.dataloader import Batch
from nanochat.distributed import World
from nanochat.gpt import GPT
from nanochat.metrics import MetricsLog, Progress
from nanochat.optimizers import Optimizers
from nanochat.run_folder import RunFolder, StopFlag

REMEDY = "the last checkpoint is kept; lower --lr-scale, or look at that batch"
LossSum = Callable[[torch.Tensor, torch.Tensor, torch.Tensor | None], torch.Tensor]


@dataclass
class Stage:
    """What a stage hands to the loop."""

    name: str
    options: Training
    model: GPT
    loss_sum: LossSum  # the model's, perhaps compiled
    optimizers: Optimizers
    batches: Callable[[dict[str, Any] | None], Generator[Batch, None, None]]  # from a saved position
    steps: int
    validate: Callable[[], dict[str, float]]
    sample: Callable[[], list[dict[str, str]]]
    identity: dict[str, Any]  # hashes of tokenizer, data and source: what a resumed run must share
    facts: dict[str, Any] = field(default_factory=dict)  # what every checkpoint says of itself
    objective: str = "val_bpb"  # the score of `validate` of which the lowest is the best


def _next_step(batches: Iterator[Batch]) -> Iterator[Batch]:
    """The micro-batches of one step and not one more: what comes next may be made with the new weights."""
    for batch in batches:
        yield batch
        if batch.is_last:
            return


class NotFinite(FloatingPointError):
    """A loss, gradient or weight became NaN or infinite; the text names step and batch."""


class Trainer:
    """`run()` trains a stage in its folder to the end, or to a clean stop. Every rank makes one."""

    def __init__(self, stage: Stage, folder: RunFolder, world: World, stop: StopFlag) -> None:
        self.stage, self.folder, self.world, self.stop = stage, folder, world, stop
        self.options = stage.options
        self.step = 0  # updates done
        self.data_state: dict[str, Any] | None = None
        self.best: dict[str, float] = {}  # {"step", OBJECTIVE} of the best validation
        self.last_scores: dict[str, float] = {}
        self.saved_step = -1

    def run(self) -> bool:
        """Train. True = finished; False = stopped cleanly, to be resumed."""
        self._resume()
        self.metrics = MetricsLog(self.folder.metrics if self.world.is_main else None, self.step)
        with (
            Progress(self.stage.steps, self.stage.name, enabled=self.world.is_main) as self.progress,
            closing(self.stage.batches(self.data_state)) as batches,
        ):
            while self.step < self.stage.steps and not self._stopping():
                self._train_step(batches)
                self._after_step()
        return self._finish()

    # ------------------------------------------------------------------ one step

    def _train_step(self, batches: Iterator[Batch]) -> None:
        started = time.perf_counter()
        micro_batches = list(_next_step(batches))
        stats, scores = micro_batches[-1].stats, micro_batches[-1].scores
        targets = max(1, stats["step_targets"])  # over all ranks and micro-batches
        loss = torch.zeros((), device=self.world.device)
        for batch in micro_batches:
            part = self.stage.loss_sum(batch.inputs, batch.targets, batch.factors) / targets
            part.backward()
            loss += part.detach()
        loss_value, gradient_norm = self._check_finite(loss)
        multiplier = self.stage.optimizers.step(self.step)
        self.stage.model.zero_grad(set_to_none=True)
        self.data_state = micro_batches[-1].state
        self.step += 1
        scores = {"loss": loss_value, **scores}
        self._log(scores, stats, time.perf_counter() - started, gradient_norm, multiplier)

    def _check_finite(self, loss: torch.Tensor) -> tuple[float, float]:
        """Loss over all ranks and the norm of the (local) gradients; NotFinite on all ranks alike."""
        grads = [p.grad for p in self.stage.model.parameters() if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(grads)
        loss_value, norm_squared = self.world.sum(torch.stack([loss, norm.square()])).tolist()
        if not (math.isfinite(loss_value) and math.isfinite(norm_squared)):
            what = "loss" if not math.isfinite(loss_value) else "gradient"
            raise NotFinite(
                f"step {self.step + 1}: the {what} is not finite (its batch starts {self._where()}); {REMEDY}"
            )
        return loss_value, math.sqrt(norm_squared)

    def _where(self) -> str:
        """Where the last batch ended and the next one starts."""
        return "at " + ", ".join(
            f"{k} {(self.data_state or {}).get(k, 0)}" for k in ("epoch", "window", "row")
        )

    def _log(
        self, scores: dict[str, float], stats: dict[str, int], seconds: float, norm: float, multiplier: float
    ) -> None:
        tokens_per_s = stats["step_tokens"] / seconds
        self.metrics.log(
            self.step, **scores, gradient_norm=norm, lr_scale=multiplier, targets=stats["step_targets"],
            tokens=stats["all_tokens"], tokens_per_s=tokens_per_s, step_s=seconds,
        )  # fmt: skip
        if self.step % self.options.log_every_steps == 0 or self.step == self.stage.steps:
            self.progress.update(self.step, **scores, tokens_per_s=tokens_per_s)

    # ------------------------------------------------------------------ between steps

    def _after_step(self) -> None:
        if self._is_due(self.options.eval_every_steps):
            self._validate()
        if self._is_due(self.options.sample_every_steps):
            self._sample()
        if self._is_due(self.options.save_every_steps):
            self._save()

    def _is_due(self, every: int) -> bool:
        return every > 0 and self.step % every == 0 and self.step < self.stage.steps

    def _stopping(self) -> bool:
        asked = self.world.is_main and self.folder.stop_requested()
        return self.world.any(asked or self.stop.is_set() or self.step == self.options.stop_at_step)

    def _validate(self) -> None:
        started = time.perf_counter()
        self.last_scores = self.stage.validate()
        seconds = time.perf_counter() - started
        self.metrics.log(self.step, **self.last_scores, eval_s=seconds)
        shown = ", ".join(f"{k} {v:.4f}" for k, v in self.last_scores.items())
        print0(f"step {self.step}: {shown} ({seconds:.1f} s)")
        goal = self.stage.objective
        if self.last_scores[goal] < self.best.get(goal, math.inf):
            self.best = {"step": self.step, goal: self.last_scores[goal]}

    def _sample(self) -> None:
        if self.world.is_main:
            started = time.perf_counter()
            samples = self.stage.sample()
            self.metrics.log(self.step, samples=samples, sample_s=time.perf_counter() - started)

    def _save(self) -> None:
        if self.saved_step == self.step:
            return
        state = {
            "stage": self.stage.name, "data": self.data_state, "best": self.best, "scores": self.last_scores,
            "identity": self.stage.identity, **self.stage.facts,
        }  # fmt: skip
        stage, started = self.stage, time.perf_counter()
        try:
            checkpoint_manager.save(
                self.folder.path, self.step, stage.model, stage.optimizers, state, self.world
            )
        except FloatingPointError as error:
            raise NotFinite(f"{error} (its batch ends {self._where()}); {REMEDY}") from error
        self.saved_step = self.step
        self.metrics.log(self.step, save_s=time.perf_counter() - started)
        if self.world.is_main:
            checkpoint_manager.prune(self.folder.path, self.options.keep_last, int(self.best.get("step", -1)))

    # ------------------------------------------------------------------ start and end

    def _resume(self) -> None:
        folder = self.world.share(self._newest())
        if folder is None:
            return
        state = read_json(Path(folder) / "state.json")
        if state["identity"] != self.stage.identity:
            odd = [k for k, v in self.stage.identity.items() if state["identity"].get(k) != v]
            raise UsageError(
                f"{self.folder.path} was trained with another {' and '.join(odd)}; use --run or --fresh"
            )
        checkpoint_manager.load_weights(Path(folder), self.stage.model)
        if missing := checkpoint_manager.load_optimizers(Path(folder), self.stage.optimizers):
            raise UsageError(
                f"{folder} lacks optimizer state ({', '.join(sorted(missing)[:3])}); use --fresh"
            )
        self.step = self.saved_step = state["step"]
        self.data_state, self.best, self.last_scores = state["data"], state["best"], state["scores"]
        if self.options.threads is None:  # another number would round differently
            torch.set_num_threads(state["threads"])
        print0(f"resumed at step {self.step} of {self.stage.steps} from {folder}")

    def _newest(self) -> str | None:
        """Only rank 0 looks at the filesystem: ranks may see different things on a network one."""
        found = checkpoint_manager.newest(self.folder.path) if self.world.is_main else None
        return str(found) if found else None

    def _finish(self) -> bool:
        done = self.step >= self.stage.steps
        if done and self.saved_step < self.step:  # else it was killed after its last save
            self._validate()
            self._sample()
        self._save()
        facts = {
            "step": self.step,
            "steps": self.stage.steps,
            "scores": self.last_scores,
            "data": self.data_state,
        }
        if self.world.is_main:
            self.folder.mark("DONE" if done else "STOPPED", facts)
        self.world.barrier()  # a rank that leaves early makes its launcher end the others
        return done
