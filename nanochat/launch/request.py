"""What the user asked for: one command line -> the launcher's own options, the site, and each stage's
options.

An option goes to every stage that has it (`--depth 12`), or to one (`--base.steps 500`); `KEY=value` in
capitals sets a key of the site. What no stage knows is refused here, on the login node. What it is not: jobs
(`plan.py`). Look at it: `python -m scripts.launch plan --preset tiny --site lab`.
"""

from __future__ import annotations

import dataclasses
import difflib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nanochat import configurator, pipeline
from nanochat.assets import DownloadData, Preflight, Wanted
from nanochat.common import UsageError, base_dir
from nanochat.config import (
    BaseTrain,
    ChatEval,
    ChatSFT,
    Finetune,
    MidTrain,
    Pipeline,
    Rooted,
    SampleWorld,
)
from nanochat.config_data import TokEval, TokTrain
from nanochat.config_eval import BaseEval
from nanochat.config_rl import ChatRL
from nanochat.launch import sites
from nanochat.launch.sites import Site
from nanochat.options import opt
from nanochat.pipeline import Step

CLASSES: dict[str, type] = {
    "download_data": DownloadData, "sample_world": SampleWorld, "tok_train": TokTrain,
    "tok_eval": TokEval, "base_train": BaseTrain, "mid_train": MidTrain, "chat_sft": ChatSFT,
    "chat_rl": ChatRL, "base_eval": BaseEval, "chat_eval": ChatEval, "report": Rooted,
}  # fmt: skip
PLACES = ("run", "base_dir", "fresh", "dry_run")  # the launcher's: the same for all stages
OF_PIPELINE = ("control_items", "world_seed", "embedded_world", "rl")
OF_PREFLIGHT = ("stages", "site", "verify", "json", "image")  # which are not the data's, too


@dataclasses.dataclass(frozen=True)
class Launch(Rooted):
    """How a run becomes jobs."""

    site: str | None = opt(None, "site file in env/sites (default: NANOCHAT_SITE, else generic)")
    segments: int | None = opt(None, "jobs of each training stage, one after another", low=1)
    segment_minutes: int | None = opt(None, "time limit of each of them", low=1)
    until: str | None = opt(None, "last stage of the recipe to run; the report comes behind it")
    fresh: bool = opt(False, "start again: what an earlier run of that name left is moved aside")
    new_code: bool = opt(False, "go on with the clone's code as it is now, not with the run's copy")
    dry_run: bool = opt(False, "print the plan and exit; with plan: as a table and as a graph")
    texts: bool = opt(False, "with plan: print the batch script of every job")
    mermaid: bool = opt(False, "with plan: print the jobs as a Mermaid graph, without the table")


@dataclasses.dataclass(frozen=True)
class Asked:
    """A stage of the recipe with its final options, and where each came from."""

    step: Step
    config: Any
    origins: dict[str, str]

    @property
    def slug(self) -> str:
        return slug(self.step.name)

    def changed(self, **values: Any) -> Asked:
        """With other values, which the plan chose."""
        config = dataclasses.replace(self.config, **values)
        return dataclasses.replace(self, config=config, origins=self.origins | dict.fromkeys(values, "plan"))

    def toml(self) -> str:
        return configurator.as_toml(self.config, self.origins, self.step.script)


@dataclasses.dataclass(frozen=True)
class Request:
    launch: Launch
    recipe: str  # the preset
    site: Site
    run: str
    root: Path
    recipe_stages: tuple[Asked, ...]
    preflight: Preflight
    words: tuple[str, ...]  # as they were typed

    @property
    def stages(self) -> list[Asked]:
        """Those of the recipe, up to `--until`, and the report."""
        slugs = [asked.slug for asked in self.recipe_stages]
        last = len(slugs) if self.launch.until is None else slugs.index(self.launch.until)
        return [a for n, a in enumerate(self.recipe_stages) if n <= last or a.step.script == "report"]


def slug(name: str) -> str:
    return name.replace(" ", "_")


def read(argv: Sequence[str], more: Sequence[str] = ()) -> Request:
    """The request that a command line makes; UsageError for what no part of it understands.

    `more` words come later and replace those that say otherwise.
    """
    keys, words = sites.split(argv)
    later, rest = sites.split(more)
    preset, words = take(words, "preset")
    preset = preset or os.environ.get("NANOCHAT_PRESET") or "speedrun"
    recipe = configurator.parse(Pipeline, ["--preset", preset], prog="launch", about=None)
    with_rl = any(word.lstrip("-").partition("=")[0] == "rl" for word in words)
    widest = dataclasses.replace(recipe, rl=recipe.rl or with_rl)
    names = {slug(step.name): CLASSES[step.script] for step in pipeline.plan(widest)}
    parts = {"launch": Launch, "pipeline": Pipeline, "preflight": Preflight, **names}
    before, after = _route(words, parts), _route(rest, parts)
    routed = {
        part: [f"--{k.replace('_', '-')}={v}" for k, v in (before[part] | after[part]).items()]
        for part in parts
    }
    launch = configurator.parse(Launch, ["--preset", preset, *routed["launch"]], prog="launch", about=None)
    site = sites.load(launch.site, keys | later)
    depth = next((w.partition("=")[2] for w in routed.get("base", []) if w.startswith("--depth=")), None)
    run = launch.run or (f"d{depth}" if depth else recipe.run) or preset
    root = _place(launch.base_dir or site.base_dir)
    recipe = configurator.parse(
        Pipeline,
        ["--preset", preset, "--run", run, "--nproc", str(site.ranks), *routed["pipeline"]],
        prog="launch", about=None,
    )  # fmt: skip
    rooted = ["--preset", preset, "--run", run, "--base-dir", str(root)]
    stages = tuple(
        _ask(step, rooted, routed.get(slug(step.name), []), site) for step in pipeline.plan(recipe)
    )
    slugs = [asked.slug for asked in stages]
    if launch.until not in (None, *slugs):
        raise UsageError(f"--until {launch.until}: there is no such stage; stages are {', '.join(slugs)}")
    looked: Preflight = configurator.parse(
        Preflight, [*rooted, *routed["preflight"]], prog="preflight", about=None
    )
    mixtures = {f"{s.step.stage}_mixture": s.config.mixture for s in stages if isinstance(s.config, Finetune)}
    stages = tuple(s.changed(**_unset(s.config, mixtures)) for s in stages)
    looked = dataclasses.replace(looked, **_unset(looked, mixtures))
    return Request(launch, preset, site, run, root, stages, looked, (*argv, *more))


def _unset(config: Any, mixtures: Mapping[str, Any]) -> dict[str, Any]:
    """What a stage trains on is what the data job fetches and preflight looks for, unless they were told."""
    return {k: v for k, v in mixtures.items() if isinstance(config, Wanted) and getattr(config, k) is None}


def _place(path: str) -> Path:
    """The base folder. What is relative on a login node would be elsewhere in a job."""
    if path and not Path(path).expanduser().is_absolute():
        raise UsageError(f"--base-dir {path}: give a whole path, on a filesystem that all nodes see")
    return base_dir(path or None)


def take(words: Sequence[str], name: str) -> tuple[str | None, list[str]]:
    """The value of the option `name`, and the other words. The last counts, so that a file may give one."""
    value, rest, queue = None, [], list(words)
    while queue:
        word = queue.pop(0)
        key, equals, text = word.partition("=")
        if key.removeprefix("--").replace("_", "-") != name or not (equals or word.startswith("--")):
            rest.append(word)
        elif equals:
            value = text
        else:
            value = _value_of(word, name, queue, is_switch=False)
    return value, rest


def _ask(step: Step, rooted: list[str], words: list[str], site: Site) -> Asked:
    """A step with its options: the recipe's own words first, since they say what the step is."""
    kind = CLASSES[step.script]
    fixed = {word for word in step.args if word.startswith("--")}
    words = [word for word in words if word.partition("=")[0].replace("_", "-") not in fixed]
    has_device = "device" in configurator.spellings(kind)
    if has_device and not any(word.startswith("--device=") for word in words):
        words.append(f"--device={site.device}")
    argv = [*rooted, *step.args, *words]
    config: Any
    config, origins = configurator.parse_traced(kind, argv, prog=step.script, about=None)
    return Asked(step, config, origins)


def _route(words: Sequence[str], classes: Mapping[str, type]) -> dict[str, dict[str, str]]:
    """The options that each part is given: field -> text."""
    spellings = {part: configurator.spellings(kind) for part, kind in classes.items()}
    spellings["pipeline"] = {k: v for k, v in spellings["pipeline"].items() if k in OF_PIPELINE}
    spellings["preflight"] = {k: v for k, v in spellings["preflight"].items() if k not in OF_PREFLIGHT}
    for part, known in spellings.items():
        if part != "launch":
            spellings[part] = {k: v for k, v in known.items() if k not in PLACES}
    routed: dict[str, dict[str, str]] = {part: {} for part in classes}
    rest = list(words)
    while rest:
        word = rest.pop(0)
        key, equals, value = word.lstrip("-").partition("=")
        if not word.startswith("-") and not equals:
            raise UsageError(f"unexpected word {word!r}; write --name value, --stage.name value or KEY=value")
        stage, _, name = key.rpartition(".")
        if stage and stage.replace("-", "_") not in spellings:
            raise UsageError(f"{word}: there is no stage {stage!r}; stages are {', '.join([*classes][3:])}")
        targets = [stage.replace("-", "_")] if stage else list(spellings)
        hits = {part: spellings[part][found] for part in targets if (found := _find(name, spellings[part]))}
        if not hits:
            raise _unknown(word.partition("=")[0], name, spellings)
        _refuse_two_meanings(word, hits)
        if not equals:
            value = _value_of(word, name, rest, next(iter(hits.values()))[1])
        for part, (field, _) in hits.items():
            if field in routed[part] and not stage:
                raise UsageError(f"--{field.replace('_', '-')} is given twice (the second time as {word!r})")
            routed[part][field] = value
    return routed


def _find(name: str, known: Mapping[str, tuple[str, bool]]) -> str | None:
    """The spelling that `name` is; `--no-chat` is the switch `chat`."""
    name = name.replace("-", "_")
    if name in known:
        return name
    return name[3:] if name.startswith("no_") and known.get(name[3:], ("", False))[1] else None


def _value_of(word: str, name: str, rest: list[str], is_switch: bool) -> str:
    if is_switch:
        if name.replace("-", "_").startswith("no_"):
            return "false"
        return rest.pop(0) if rest and rest[0].lower() in sites.TRUE + sites.FALSE else "true"
    if not rest or rest[0].startswith("--"):
        raise UsageError(f"{word} needs a value")
    return rest.pop(0)


def _refuse_two_meanings(word: str, hits: Mapping[str, tuple[str, bool]]) -> None:
    fields = {field for field, _ in hits.values()}
    if len(fields) > 1:
        ways = ", ".join(f"--{part}.{field}" for part, (field, _) in hits.items())
        raise UsageError(f"{word} is another option in different stages; say which: {ways}")


def _unknown(word: str, name: str, spellings: Mapping[str, Mapping[str, Any]]) -> UsageError:
    every = sorted({k for known in spellings.values() for k in known})
    close = difflib.get_close_matches(name.replace("-", "_"), every, n=1)
    hint = f"; did you mean --{close[0].replace('_', '-')}?" if close else ""
    own = " ".join(f"--{k.replace('_', '-')}" for k in spellings["launch"])
    return UsageError(
        f"unknown option {word}{hint}\nthe launcher's options: {own}\n"
        "those of a stage: python -m scripts.base_train --help, and so on"
    )
