"""The curves of a report as inline SVG: loss, rewards, bits per byte, learning rate, throughput.

What it is: `draw(report)` -> figures whose colours are CSS variables (`--base`, `--mid`, ..., `--line`), so
that the page decides about light and dark. matplotlib (the extra `report`) draws them; without it there
are no figures and a line that says so. What it is not: collecting or smoothing (`report.py`). No torch.
Run: `python -m scripts.report --run laptop`.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# matplotlib wants colours as numbers; each stands for a variable of the page.
COLOURS = {
    "base": "#0000b1", "mid": "#0000b2", "sft": "#0000b3", "rl": "#0000b4",
    "text": "#0000a1", "line": "#0000a2",
}  # fmt: skip
NAMES = {"base": "pretraining", "mid": "mid-training", "sft": "SFT", "rl": "RL"}
LEARNING_CAPTION = (
    "Share of replies that are right, by step: among those trained on (line), and on problems held out for "
    "validation, greedily and sampled (dots). pass@k: at least one of k replies is right."
)
LOSS_CAPTION = "Nats per supervised token: each stretch of steps (thin), smoothed (bold), validation (dots)."
STYLE = {
    "svg.fonttype": "none",  # text stays text: small, selectable, in the page's font
    "font.size": 10,
    "text.color": COLOURS["text"],
    "axes.labelcolor": COLOURS["text"],
    "axes.edgecolor": COLOURS["line"],
    "xtick.color": COLOURS["text"],
    "ytick.color": COLOURS["text"],
    "grid.color": COLOURS["line"],
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "axes.axisbelow": True,
    "axes.xmargin": 0.02,
    "legend.frameon": False,
    "lines.linewidth": 2,
    "lines.solid_joinstyle": "round",
}


class Plot(NamedTuple):
    """One figure: a title, a sentence that says how to read it, and the `<svg>` element."""

    title: str
    caption: str
    svg: str


def draw(report: Mapping[str, Any]) -> tuple[list[Plot], str | None]:
    """Every figure that the run has data for, and a line for the page if there can be none."""
    curves = {stage: found for stage, found in report["curves"].items() if found["tokens"]}
    if not curves:
        return [], "No training step was recorded yet, so there are no curves."
    try:
        import matplotlib
    except ImportError:
        return (
            [],
            "The curves need matplotlib: pip install 'nanochat-hpc[report]', then write the report again.",
        )
    with matplotlib.rc_context(STYLE):
        plots = [
            Plot(f"Learning curve, {NAMES[name]}", LEARNING_CAPTION, _learning_svg(name, curve["learning"]))
            if curve["learning"]
            else Plot(f"Loss, {NAMES[name]}", LOSS_CAPTION, _loss_svg(name, curve))
            for name, curve in curves.items()
        ]
        shared = (
            (
                "val_bpb",
                "Validation, bits per byte",
                "On text or conversations that the stage never trains on.",
            ),
            ("lr_scale", "Learning rate", "As a share of its peak, over the tokens of all stages."),
            ("tokens_per_s", "Throughput", "Tokens per second of training, over the tokens of all stages."),
        )
        for key, title, caption in shared:
            if any(found[key] for found in curves.values()):
                plots.append(Plot(title, caption, _shared_svg(key, curves)))
    return plots, None


def _loss_svg(stage: str, curve: Mapping[str, Any]) -> str:
    def plot(axes: Axes) -> None:
        axes.plot(curve["tokens"], curve["loss"], color=COLOURS[stage], linewidth=0.8, alpha=0.45)
        axes.plot(curve["tokens"], curve["smooth_loss"], color=COLOURS[stage])
        axes.set_position((0.09, 0.16, 0.9, 0.8))  # no legend above
        for tokens, loss in curve["val_loss"]:
            axes.plot(tokens, loss, "o", color=COLOURS["text"], markersize=4)
        # The first steps fall from ln(vocabulary); the rest is what one wants to see.
        late = curve["loss"][len(curve["loss"]) // 50 :] + [loss for _, loss in curve["val_loss"]]
        margin = 0.04 * (max(late) - min(late)) or 0.1
        axes.set_ylim(min(late) - margin, max(late) + margin)

    return _svg(f"loss-{stage}", plot)


def _learning_svg(stage: str, rates: Mapping[str, Any]) -> str:
    """pass@1 as a line in the stage's colour, the highest k in the text's; validations as dots."""
    trained = [name for name in rates if not name.startswith("val_")]
    highest = max((int(name.rpartition("_")[2]) for name in trained), default=1)
    held_out = ("val_greedy", "val_pass_1", f"val_pass_{highest}")
    markers = dict(zip(held_out, "so^", strict=True))

    def plot(axes: Axes) -> None:
        for name in (n for n in (*trained, *held_out) if n in rates):
            colour = COLOURS["text" if name.endswith(f"pass_{highest}") else stage]
            style = {"marker": markers[name], "linestyle": ""} if name in markers else {"linewidth": 1}
            label = name.replace("pass_", "pass@").replace("val_", "held out, ")
            axes.plot(*zip(*rates[name], strict=True), color=colour, markersize=4, label=label, **style)
        axes.set_ylim(0, 1.02)
        axes.legend(loc="lower right", ncols=2, fontsize=8)

    return _svg(f"learning-{stage}", plot, "steps")


def _shared_svg(key: str, curves: Mapping[str, Mapping[str, Any]]) -> str:
    """One line a stage, each beginning where the one before ended."""

    def plot(axes: Axes) -> None:
        done = 0.0
        for stage, curve in curves.items():
            points = curve[key] if key == "val_bpb" else zip(curve["tokens"], curve[key], strict=True)
            shifted = [(done + tokens, value) for tokens, value in points]
            marker = "o" if key == "val_bpb" else None
            if shifted:
                axes.plot(
                    *zip(*shifted, strict=True),
                    marker=marker,
                    markersize=4,
                    color=COLOURS[stage],
                    label=NAMES[stage],
                )
            done += curve["tokens"][-1]
        if key != "val_bpb":
            axes.set_ylim(bottom=0)
        axes.legend(
            loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, handlelength=1.2, columnspacing=1.4
        )

    return _svg(key, plot)


def _short_number(value: float, _: object) -> str:
    for size, unit in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:g} {unit}"
    return f"{value:g}"


def _svg(name: str, plot: Callable[[Axes], None], x: str = "tokens") -> str:
    """Draw on one pair of axes and return an `<svg>` that can stand in a page beside others."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    figure = Figure(figsize=(5.6, 3.1))
    axes = figure.add_axes((0.09, 0.16, 0.9, 0.72))  # automatic layouts take three times as long
    plot(axes)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.xaxis.set_major_formatter(FuncFormatter(_short_number))
    axes.yaxis.set_major_formatter(FuncFormatter(_short_number))
    axes.set_xlabel(x)
    return to_svg(figure, name)


def to_svg(figure: Figure, name: str) -> str:
    """A figure whose colours are those of COLOURS as an `<svg>` for a page; `name` is its own there."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return _for_a_page(buffer.getvalue(), name)


def _for_a_page(text: str, name: str) -> str:
    """Cut the file down to its element; make ids unique, colours variables and the font the page's."""
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'(?<=\sid=")|(?<=href="#)|(?<=url\(#)', f"{name}-", text)
    text = re.sub(r"font: ([\d.]+px) [^;\"]*", r"font-size: \1", text)
    for variable, colour in COLOURS.items():
        text = text.replace(colour, f"var(--{variable})")
    text = re.sub(r'(<svg [^>]*?)width="[^"]*"', r"\1", text, count=1)
    return re.sub(r'(<svg [^>]*?)height="[^"]*"', r'\1role="img"', text, count=1)
