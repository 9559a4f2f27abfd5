"""From a frozen dataclass and a command line to a checked config: the only option parser of the project.

A thin layer over `cyclopts`, which converts text to the annotated types and draws the help page. What is ours
is the order of the sources: defaults < `--preset NAME` < `--config FILE` < environment (`NANOCHAT_FIELD`) <
command line. `--flag-name`, `--flag_name`, the field's legacy aliases and bare `key=value` mean the same.
Nothing is guessed: an unknown or repeated option and an ill-typed value are errors that say what would be
right. What it is not: a place for options (`config.py`) or for rules between them (their `__post_init__`).

How to look at it: `python -m scripts.base_train --preset laptop --print-config`. No torch.
"""

from __future__ import annotations

import dataclasses
import difflib
import inspect
import json
import math
import os
import re
import sys
import textwrap
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import cyclopts

from nanochat.common import UsageError, json_safe
from nanochat.presets import PRESETS

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ConfigT = TypeVar("ConfigT")
Presets = Mapping[str, Mapping[str, Mapping[str, Any]]]

_TRUE = ("true", "yes", "on", "1")
_FALSE = ("false", "no", "off", "0")
_COMMON_HELP = {
    "config": "TOML file with option = value lines; its tables are for the reader only",
    "preset": "named set of values",
    "print_config": "print each value and where it came from, as TOML, and exit",
    "help": "print this page and exit",
}


@dataclasses.dataclass(frozen=True)
class _Option:
    """One field of a config dataclass, as the parser needs it."""

    name: str
    type: Any
    default: Any
    help: str
    aliases: tuple[str, ...]
    owner: type

    @property
    def flag(self) -> str:
        return "--" + self.name.replace("_", "-")

    @property
    def optional(self) -> bool:
        return type(None) in get_args(self.type)

    @property
    def plain(self) -> Any:
        """The type without `None`: int for `int | None`."""
        return get_args(self.type)[0] if self.optional else self.type

    @property
    def is_tuple(self) -> bool:
        return get_origin(self.plain) is tuple

    @property
    def more_values(self) -> int:
        """Of a pair 1: it may be written `--flag A B`, and like any tuple `--flag A,B`."""
        return 0 if not self.is_tuple or ... in get_args(self.plain) else len(get_args(self.plain)) - 1

    @property
    def choices(self) -> tuple[Any, ...]:
        return get_args(self.plain) if get_origin(self.plain) is Literal else ()

    @property
    def kind(self) -> str:
        """What a right value is, for messages."""
        if self.choices:
            return f"one of {', '.join(map(str, self.choices))}"
        if self.more_values:
            return f"{1 + self.more_values} values"
        names = {int: "a whole number", float: "a number", bool: "true or false"}
        return names.get(self.plain, f"of type {getattr(self.plain, '__name__', self.plain)}")

    @property
    def example(self) -> str:
        if self.plain is bool:
            return f"{self.flag} or --no-{self.flag[2:]}"
        samples = {int: 100, float: 0.5, str: "text"}
        default = None if self.default is dataclasses.MISSING else self.default
        if self.more_values:
            return f"{self.flag} {' '.join('ABCD'[: 1 + self.more_values])}"
        known = (default, *self.choices, samples.get(self.plain))
        value = next((item for item in known if item is not None), "...")
        return f"{self.flag} {value}"


def _options(config_class: type) -> dict[str, _Option]:
    """The options of a config dataclass by field name, those of the most special class first."""
    hints = get_type_hints(config_class)
    order = list(config_class.__mro__)
    owners = {name: kind for kind in order[::-1] for name in inspect.get_annotations(kind)}
    found = [
        _Option(
            field.name,
            hints[field.name],
            field.default,
            field.metadata.get("help", ""),
            tuple(field.metadata.get("alias", ())),
            owners[field.name],
        )
        for field in dataclasses.fields(config_class)  # type: ignore[arg-type]
    ]
    assert not _COMMON_HELP.keys() & {option.name for option in found}, "these names are the parser's own"
    return {option.name: option for option in sorted(found, key=lambda option: order.index(option.owner))}


def spellings(config_class: type) -> dict[str, tuple[str, bool]]:
    """Every spelling of every option, with underscores -> (its field, whether it is a switch)."""
    options = _options(config_class)
    return {word: (name, options[name].plain is bool) for word, name in _names(options).items()}


# ----------------------------------------------------------------------------- sources


def _names(options: Mapping[str, _Option]) -> dict[str, str]:
    """Every spelling of every option, with underscores -> field name."""
    return {alias: option.name for option in options.values() for alias in (option.name, *option.aliases)}


def _read_argv(argv: Sequence[str], options: Mapping[str, _Option]) -> dict[str, str]:
    """The command line as field name -> text. Each word is an option, an option's value or an error."""
    names = _names(options) | {name: name for name in _COMMON_HELP} | {"h": "help"}
    switches = {option.name for option in options.values() if option.plain is bool} | {"help", "print_config"}
    given: dict[str, str] = {}
    words = list(argv)
    while words:
        word = words.pop(0)
        key, equals, value = word.lstrip("-").partition("=")
        key = key.replace("-", "_")
        if not word.startswith("-") and not equals:
            raise UsageError(f"unexpected word {word!r}; options are written --name value or name=value")
        negated = key not in names and key.startswith("no_") and names.get(key[3:]) in switches and not equals
        name = names.get(key[3:] if negated else key)
        if name is None:
            raise _unknown(word.partition("=")[0], names, options)
        if name in given:
            raise UsageError(f"--{name.replace('_', '-')} is given twice (the second time as {word!r})")
        if negated:
            value = "false"
        elif not equals and name in switches:
            value = words.pop(0) if words and words[0].lower() in _TRUE + _FALSE else "true"
        elif not equals:
            if not words or words[0].startswith("--"):
                raise UsageError(f"{word} needs a value, such as {_example(name, options)}")
            value = words.pop(0)
            more = options[name].more_values if name in options else 0
            while more and words and not words[0].startswith("--"):
                value, more = f"{value},{words.pop(0)}", more - 1
        given[name] = value
    return given


def _example(name: str, options: Mapping[str, _Option]) -> str:
    own = {"config": "--config run.toml", "preset": "--preset laptop"}
    return own.get(name) or options[name].example


def _unknown(word: str, names: Mapping[str, str], options: Mapping[str, _Option]) -> UsageError:
    close = difflib.get_close_matches(word.lstrip("-").replace("-", "_"), names, n=1)
    hint = f"; did you mean --{names[close[0]].replace('_', '-')}?" if close else ""
    flags = " ".join(
        [*(option.flag for option in options.values()), "--config", "--preset", "--print-config"]
    )
    listing = textwrap.fill(flags, 100, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False)
    return UsageError(f"unknown option {word}{hint}\noptions (--help explains them):\n{listing}")


def _read_toml(path: str, options: Mapping[str, _Option]) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            tables = tomllib.load(file)
    except FileNotFoundError as error:
        raise UsageError(f"--config {path}: there is no such file") from error
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"--config {path} is not valid TOML: {error}") from error
    flat: dict[str, Any] = {}
    for key, value in tables.items():
        for name, item in value.items() if isinstance(value, dict) else [(key, value)]:
            if name in flat:
                raise UsageError(f"--config {path}: {name!r} stands there twice")
            flat[name] = item
    return _known(flat, options, f"--config {path}")


def _known(values: Mapping[str, Any], options: Mapping[str, _Option], origin: str) -> dict[str, Any]:
    """`values` by field name; aliases are resolved, unknown keys refused."""
    names = _names(options)
    for key in values:
        if key.replace("-", "_") not in names:
            raise UsageError(f"{origin}: {_unknown(key, names, options)}")
    return {names[key.replace("-", "_")]: value for key, value in values.items()}


def _read_preset(name: str, config_class: type, presets: Presets) -> dict[str, Any]:
    if name not in presets:
        raise UsageError(f"unknown preset {name!r}; presets are: {', '.join(sorted(presets))}")
    parts = [presets[name].get(kind.__name__, {}) for kind in config_class.__mro__[::-1]]
    return {key: value for part in parts for key, value in part.items()}


# ----------------------------------------------------------------------------- values


def _text(option: _Option, value: Any) -> str:
    """One value as text that cyclopts reads; whole numbers may be written 1e9 or 2.0, switches on and off."""
    text = str(value).strip()
    if option.plain is bool:
        return {"on": "true", "off": "false"}.get(text.lower(), text)
    if option.plain is int and re.fullmatch(r"[-+]?[\d_]*\.?\d*([eE]\+?\d+)?", text) and not text.isdigit():
        number = float(text)
        if number != int(number):  # cyclopts would round it
            raise ValueError(f"{text} is not a whole number")
        return str(int(number))
    if option.plain is float and not math.isfinite(float(text)):
        raise ValueError(f"{text} is not finite")
    return str(value)


def _convert(option: _Option, value: Any, origin: str) -> Any:
    """A source's value as the type of its field."""
    if option.optional and (value is None or str(value).lower() in ("none", "null")):
        return None
    values = (
        value
        if isinstance(value, (list, tuple))
        else re.split(r"\s*,\s*", str(value))
        if option.is_tuple
        else [value]
    )
    try:
        return cyclopts.convert(option.plain, [_text(option, item) for item in values])
    except (cyclopts.CycloptsError, ValueError, OverflowError) as error:
        raise UsageError(
            f"{option.flag}: {value!r} (from {origin}) is not {option.kind}; example: {option.example}"
        ) from error


def to_dict(config: Any) -> dict[str, Any]:
    """A config as JSON's types, for config.json; `from_dict` is the way back."""
    return json_safe(config)  # type: ignore[no-any-return]


def from_dict(
    config_class: type[ConfigT], values: Mapping[str, Any], origin: str = "saved config"
) -> ConfigT:
    """A config from a dict; absent fields keep their defaults, unknown keys and wrong types are refused."""
    options = _options(config_class)
    known = _known(values, options, origin)
    required = [name for name, option in options.items() if option.default is dataclasses.MISSING]
    if missing := [name for name in required if name not in known]:
        raise UsageError(f"{origin} lacks {', '.join(missing)}")
    return config_class(**{name: _convert(options[name], value, origin) for name, value in known.items()})


# ----------------------------------------------------------------------------- the parser


def parse_traced(
    config_class: type[ConfigT],
    argv: Sequence[str],
    *,
    prog: str,
    about: str | None,
    presets: Presets | None = None,
) -> tuple[ConfigT, dict[str, str]]:
    """Like `parse`, and where each field came from: name -> "default", "preset tiny", "command line", ..."""
    options, presets = _options(config_class), PRESETS if presets is None else presets
    given = _read_argv(argv, options)
    if given.pop("help", "false").lower() in _TRUE:
        _print_help(config_class, prog, about or "", presets)
        raise SystemExit(0)
    sources: list[tuple[str, Mapping[str, Any]]] = []
    if (preset := given.pop("preset", None)) is not None:
        sources.append((f"preset {preset}", _read_preset(preset, config_class, presets)))
    if (path := given.pop("config", None)) is not None:
        sources.append((f"file {path}", _read_toml(path, options)))
    for name in options:
        variable = f"NANOCHAT_{name.upper()}"
        if os.environ.get(variable):
            sources.append((f"environment variable {variable}", {name: os.environ[variable]}))
    show = given.pop("print_config", "false").lower() in _TRUE
    sources.append(("command line", given))

    values: dict[str, Any] = {}
    origins = dict.fromkeys(options, "default")
    for origin, layer in sources:
        for name, value in layer.items():
            values[name], origins[name] = _convert(options[name], value, origin), origin
    config = config_class(**values)
    if show:
        print(as_toml(config, origins, prog))
        raise SystemExit(0)
    return config, origins


def parse(
    config_class: type[ConfigT],
    argv: Sequence[str],
    *,
    prog: str,
    about: str | None,
    presets: Presets | None = None,
) -> ConfigT:
    """A config from preset, file, environment and command line; `--help` and `--print-config` exit here.

    `prog` is the name of the script, `about` its docstring. Faults of the user raise `UsageError`.
    """
    return parse_traced(config_class, argv, prog=prog, about=about, presets=presets)[0]


def as_toml(config: Any, origins: Mapping[str, str], prog: str) -> str:
    """Every value with its origin as a comment; the text is a valid `--config` file."""
    lines, owner = [f"# {prog}: each value and where it came from"], None
    for option in _options(type(config)).values():
        if option.owner is not owner:
            owner = option.owner
            lines += ["", f"[{owner.__name__}]"]
        value = getattr(config, option.name)
        text = f"{option.name} = {json.dumps(value, ensure_ascii=False)}"
        if value is None:  # TOML has no null
            text = f"# {option.name} is not set"
        lines.append(f"{text:<44} # {origins[option.name]}")
    return "\n".join(lines)


def _help_group(owner: type, order: int) -> cyclopts.Group:
    title = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", owner.__name__)
    return cyclopts.Group(title, help=(owner.__doc__ or "").split("\n\n")[0], sort_key=order)


def _help_parameter(
    name: str, kind: Any, default: Any, text: str, group: cyclopts.Group
) -> inspect.Parameter:
    flag = name.replace("_", "-")
    negative = f"--no-{flag}" if kind is bool and default else ()
    note = cyclopts.Parameter(name=f"--{flag}", help=text, group=group, negative=negative)
    keyword = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter(name, keyword, default=default, annotation=Annotated[kind, note])


def _print_help(config_class: type, prog: str, about: str, presets: Presets) -> None:
    """The help page, drawn by cyclopts from a signature made of the fields."""
    options = _options(config_class).values()
    owners = dict.fromkeys(option.owner for option in options)
    groups = {owner: _help_group(owner, order) for order, owner in enumerate(owners)}
    every = cyclopts.Group("Every script", sort_key=len(groups))
    common = _COMMON_HELP | {"preset": f"{_COMMON_HELP['preset']}: {', '.join(presets)}"}
    parameters = [
        *(_help_parameter(o.name, o.type, o.default, o.help, groups[o.owner]) for o in options),
        *(_help_parameter(n, str | None, None, common[n], every) for n in ("config", "preset")),
        *(_help_parameter(n, bool | None, None, common[n], every) for n in ("print_config", "help")),
    ]

    def script(**_: Any) -> None:
        """Never called: cyclopts reads its signature."""

    script.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    script.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    name = f"python -m scripts.{prog}"
    app = cyclopts.App(
        name, inspect.cleandoc(about), help_format="plaintext", help_flags=(), version_flags=()
    )
    app.default(script)
    app.help_print([])
