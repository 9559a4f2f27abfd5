"""What an option is: a dataclass field with a help line, legacy names and limits.

What it is: the mechanism behind `config.py`. What it is not: options, or their parsing (`configurator.py`).
How to look at it: `python -m scripts.base_train --depth 0`.
"""

from __future__ import annotations

import re
from dataclasses import field, fields
from typing import Any

from nanochat.common import UsageError


def opt(
    default: Any, help: str, *, alias: tuple[str, ...] = (),
    low: float | None = None, high: float | None = None, pattern: str | None = None,
) -> Any:  # fmt: skip
    """A dataclass field: its help line, legacy flag names (underscores, no dashes), and legal values."""
    facts = {"help": help, "alias": alias, "low": low, "high": high, "pattern": pattern}
    return field(default=default, metadata=facts)


class Checked:
    """A config that refuses, when it is made, what no run could use: long before torch is imported."""

    def __post_init__(self) -> None:
        for option in fields(self):  # type: ignore[arg-type]
            value = getattr(self, option.name)
            low, high, pattern = (option.metadata.get(fact) for fact in ("low", "high", "pattern"))
            flag = f"--{option.name.replace('_', '-')} {value}"
            if value is None:
                continue
            if (low is not None and value < low) or (high is not None and value > high):
                limits = [f"at least {low}"] * (low is not None) + [f"at most {high}"] * (high is not None)
                raise UsageError(f"{flag}: use {' and '.join(limits)}")
            if pattern is not None and not re.fullmatch(pattern, value):
                raise UsageError(f"{flag}: use letters, digits, '.', '_' and '-', a letter or digit first")
