"""Three trainings as their reports show them: a healthy one, one with too large a rate, one with a dead leaf.

`runs` trains a small network on made-up data with the installed package and keeps every report; `draw` makes
one picture of one run. Sphinx draws them at each build, and `python docs/_extensions/drawings.py` as PNG.
"""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

import adafactor
from adafactor.schedules import CosineDecay

STEPS = 300


class Run(NamedTuple):
    """What the reports of a training held, number by number, each (steps, leaves) but the loss."""

    paths: tuple[str, ...]
    loss: Any
    columns: dict[str, Any]


def train(knobs: dict[str, Any], branch_offset: float = 0.0) -> Run:
    """Fit relu(x H + b) O + relu(x B - offset) to such a network; a large offset kills the branch B."""
    random = np.random.default_rng(0)

    def normal(*shape: int) -> Any:
        return random.normal(0, 1 / np.sqrt(shape[0]), size=shape).astype(np.float32)

    teacher = normal(32, 64), normal(64, 8), normal(32, 8)
    params = {
        "hidden/weight": normal(32, 64),
        "hidden/bias": np.zeros(64, np.float32),
        "output": normal(64, 8),
        "branch": normal(32, 8),
    }
    state = adafactor.init(list(params.values()), **knobs)
    losses, reports = [], []
    for _ in range(STEPS):
        x = random.normal(size=(256, 32)).astype(np.float32)
        target = np.maximum(x @ teacher[0], 0) @ teacher[1] + np.maximum(x @ teacher[2], 0)
        hidden = np.maximum(x @ params["hidden/weight"] + params["hidden/bias"], 0)
        branch = np.maximum(x @ params["branch"] - np.float32(branch_offset), 0)
        error = (hidden @ params["output"] + branch - target) / len(x)
        back = (error @ params["output"].T) * (hidden > 0)
        grads = [x.T @ back, back.sum(axis=0), hidden.T @ error, x.T @ (error * (branch > 0))]
        losses.append(float((error**2).sum()) * len(x))
        reports.append(adafactor.step(list(params.values()), grads, state))
    names = ("grad_norm", "param_rms", "update_rms", "clip_factor", "step_size")
    columns = {name: np.array([getattr(report, name) for report in reports]) for name in names}
    return Run(tuple(params), np.array(losses), columns)


def runs() -> dict[str, Run]:
    """The three trainings by the names of their pictures."""
    healthy = {"learning_rate": CosineDecay(0.03, STEPS)}
    return {
        "healthy": train(healthy),
        "too-large-rate": train({"learning_rate": 0.6, "relative_step": False}),
        "dead-leaf": train(healthy, branch_offset=30.0),
    }


PANELS = (
    ("loss", "loss"),
    ("grad_norm", "grad_norm"),
    ("param_rms", "param_rms"),
    ("update_rms", "update_rms (dashed: clip_threshold)"),
    ("clip_factor", "clip_factor (1: not clipped)"),
    ("step_size", "step_size"),
)


def draw(run: Run, path: Path, palette: dict[str, str]) -> None:
    """One run as six panels over the calls: the loss, and five numbers of each leaf."""
    ink = palette["ink"]
    style = {
        "font.size": 10,
        **dict.fromkeys(
            ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), ink
        ),
    }
    with rc_context(style):
        figure = Figure(figsize=(10, 5.6), dpi=110)
        figure.set_layout_engine("constrained", h_pad=0.08, w_pad=0.08)
        panels = figure.subplots(2, 3, sharex=True)
        for axes, (name, title) in zip(panels.flat, PANELS, strict=True):
            panel(axes, run, name, palette)
            axes.set_title(title, fontsize=10)
            axes.set_facecolor("none")
        for axes in panels[1]:
            axes.set_xlabel("call")
        handles, labels = panels[0, 1].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=len(labels), frameon=False)
        figure.savefig(path, facecolor="none" if path.suffix == ".svg" else palette["paper"])


def panel(axes: Any, run: Run, name: str, palette: dict[str, str]) -> None:
    """One number of all leaves, or the loss."""
    calls = np.arange(1, len(run.loss) + 1)
    if name == "loss":
        axes.plot(calls, run.loss, color=palette["ink"], linewidth=1.2)
    else:
        for leaf, (label, colour) in enumerate(zip(run.paths, palette["leaves"].split(), strict=True)):
            axes.plot(calls, run.columns[name][:, leaf], color=colour, linewidth=1.2, label=label)
    if name == "clip_factor":
        axes.set_ylim(0, 1.05)
    else:
        logarithmic(axes, run.loss if name == "loss" else run.columns[name])
    if name == "update_rms":
        axes.axhline(1, color=palette["ink"], linewidth=0.9, linestyle="--")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color=palette["faint"], alpha=0.4, linewidth=0.6)


def logarithmic(axes: Any, values: Any) -> None:
    """A logarithmic axis, with a place for 0 at its foot where there is one."""
    lowest = values[values > 0].min()
    if (values == 0).any():
        foot = 10 ** np.floor(np.log10(lowest))
        axes.set_yscale("symlog", linthresh=foot, linscale=0.4)
        axes.set_ylim(-0.2 * foot, None)
        axes.yaxis.set_minor_formatter(NullFormatter())
        return
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(numticks=6))
    axes.yaxis.set_minor_formatter(NullFormatter())
    if values.max() < 30 * lowest:
        axes.yaxis.set_minor_locator(LogLocator(subs=(2, 5)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter("{x:g}")
