"""Figures of a running server, as text for Prometheus and as JSON.

What it is: counters of answers and times beside the schedulers' own. What it is not: a history; whoever asks
keeps it. Run: `curl localhost:8000/metrics` or `/stats`.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

from nanochat.scheduler import Stats

GAUGES = ("running", "waiting", "slots", "tokens_reserved")


@dataclass
class Times:
    """Sums of seconds and their counts, over answers."""

    first_token_s: float = 0.0
    first_tokens: int = 0
    answer_s: float = 0.0
    answers: int = 0

    def first_token(self, seconds: float) -> None:
        self.first_token_s += seconds
        self.first_tokens += 1

    def whole(self, seconds: float) -> None:
        self.answer_s += seconds
        self.answers += 1


def as_json(
    workers: list[tuple[str, Stats]], answers: Counter[int], times: Times, state: str
) -> dict[str, Any]:
    """What `/stats` says."""
    own = [{"device": device, **asdict(stats)} for device, stats in workers]
    return {"state": state, "responses": {str(k): n for k, n in sorted(answers.items())}, **asdict(times),
            "workers": own}  # fmt: skip


def as_text(workers: list[tuple[str, Stats]], answers: Counter[int], times: Times, state: str) -> str:
    """What `/metrics` says: Prometheus' text format, version 0.0.4."""
    lines = ["# TYPE nanochat_ready gauge", f"nanochat_ready {int(state == 'ok')}"]
    lines.append("# TYPE nanochat_responses_total counter")
    lines += [f'nanochat_responses_total{{status="{status}"}} {n}' for status, n in sorted(answers.items())]
    for name, total, count in (
        ("time_to_first_token", times.first_token_s, times.first_tokens),
        ("answer", times.answer_s, times.answers),
    ):
        lines += [f"# TYPE nanochat_{name}_seconds summary", f"nanochat_{name}_seconds_sum {total:.6f}"]
        lines.append(f"nanochat_{name}_seconds_count {count}")
    for key in Stats.__dataclass_fields__ if workers else ():
        is_gauge = key in GAUGES
        name = f"nanochat_{'busy_seconds' if key == 'busy_s' else key}{'' if is_gauge else '_total'}"
        lines.append(f"# TYPE {name} {'gauge' if is_gauge else 'counter'}")
        lines += [f'{name}{{device="{device}"}} {getattr(stats, key):.10g}' for device, stats in workers]
    return "\n".join(lines) + "\n"
