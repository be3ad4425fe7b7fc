"""Draws the four phases of a step: what each reads, what goes from one to the next, what is written when."""

from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

WIDTH = 21
PHASES = (
    (1, "moments", "row and column sums of G²;\nis every number finite?", "one pass over g"),
    (27, "factors", "norm of G and clipping by it;\nnew R and C, and C$^{-1/2}$", "rows + columns"),
    (53, "rms", "rms(U) and rms(P):\nthe factor clip, the step $\\alpha$", "one pass over g and p"),
    (79, "apply", "P ← P $-$ $\\alpha$ · clip · U;\nnew R and C are kept", "one pass, one write"),
)
BETWEEN = ((22, "sums"), (48, "factors"), (74, "clip, $\\alpha$"))


def draw(path: Path, palette: dict[str, str]) -> None:
    """The drawing, on a transparent ground unless it is a PNG."""
    style = {"text.color": palette["ink"], "font.size": 9.5}
    with rc_context(style):
        figure = Figure(figsize=(10, 4.9), dpi=110)
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set(xlim=(0, 101), ylim=(0, 49.5))
        axes.set_axis_off()
        box(axes, palette, 1, 44, 99, 4, "gradient g", palette["soft"])
        box(axes, palette, 53, 7.5, 40, 4, "parameter p", palette["soft"])
        box(
            axes,
            palette,
            27,
            1,
            73,
            4,
            "state: R and C, a number for each row and each column",
            palette["warm"],
        )
        for x, name, what, cost in PHASES:
            phase(axes, palette, x, name, what, cost)
        for x, label in BETWEEN:
            arrow(axes, palette, (x, 24), (x + 5, 24))
            axes.text(x + 2.4, 24.8, label, ha="center", va="bottom", fontsize=8)
        for x in (11.5, 66, 89.5):
            arrow(axes, palette, (x, 44), (x, 33))
        arrow(axes, palette, (63.5, 11.5), (63.5, 16))
        arrow(axes, palette, (83, 11.5), (83, 16))
        arrow(axes, palette, (89, 16), (89, 11.5), heavy=True)
        arrow(axes, palette, (37.5, 5), (37.5, 16))
        arrow(axes, palette, (97, 16), (97, 5), heavy=True)
        for ends in ((15, 22.5), (28, 41.5)):
            axes.plot([50.5, 50.5], ends, color=palette["ink"], linewidth=1.1, linestyle=(0, (5, 4)))
        axes.text(49.3, 41.5, "until here nothing\nhas been written", ha="right", va="top", style="italic")
        axes.text(51.7, 41.5, "from here on\nnothing fails", ha="left", va="top", style="italic")
        figure.savefig(path, facecolor="none" if path.suffix == ".svg" else palette["paper"])


def box(
    axes: Any, palette: dict[str, str], x: float, y: float, w: float, h: float, text: str, fill: str
) -> None:
    style = "round,pad=0,rounding_size=0.8"
    axes.add_patch(
        FancyBboxPatch((x, y), w, h, boxstyle=style, facecolor=fill, edgecolor=palette["faint"], linewidth=1)
    )
    axes.text(x + w / 2, y + h / 2, text, ha="center", va="center")


def phase(axes: Any, palette: dict[str, str], x: float, name: str, what: str, cost: str) -> None:
    box(axes, palette, x, 16, WIDTH, 17, "", palette["paper"])
    middle = x + WIDTH / 2
    axes.text(middle, 30.3, name, ha="center", va="center", family="monospace", weight="bold", fontsize=12)
    axes.text(middle, 24.6, what, ha="center", va="center")
    axes.text(middle, 18.6, cost, ha="center", va="center", style="italic", fontsize=8.5)


def arrow(
    axes: Any,
    palette: dict[str, str],
    start: tuple[float, float],
    end: tuple[float, float],
    *,
    heavy: bool = False,
) -> None:
    """From one place to another; heavy where something is written."""
    axes.add_patch(
        FancyArrowPatch(
            start,
            end,
            arrowstyle="-|>",
            mutation_scale=13,
            shrinkA=0,
            shrinkB=0,
            color="#D55E00" if heavy else palette["ink"],
            linewidth=2 if heavy else 1.1,
        )
    )
