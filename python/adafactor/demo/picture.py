"""The picture of a training: its loss, its accuracy, and what the optimizer reports of each leaf."""

from pathlib import Path
from typing import Any

import numpy as np

from adafactor.demo.training import History

# Okabe and Ito's palette, which stays distinct for every kind of colour vision; one colour a leaf.
COLOURS = ("#0072B2", "#56B4E9", "#D55E00", "#E69F00", "#009E73", "#CC79A7")


def draw(history: History, title: str, path: Path) -> None:
    """Draw a training as a PNG: loss, accuracy and, a strip for each leaf, update rms and clip factor."""
    from matplotlib.figure import Figure  # not pyplot: no window, no global state, whatever the backend

    figure = Figure(figsize=(11, 8.5), dpi=150)
    figure.set_layout_engine("constrained", w_pad=0.1, h_pad=0.04)
    figure.suptitle(title, fontsize=14, fontweight="bold")
    grid = figure.add_gridspec(2, 2, height_ratios=(4, 7))
    draw_loss(figure.add_subplot(grid[0, 0]), history)
    draw_accuracy(figure.add_subplot(grid[0, 1]), history)
    leaves = len(history.paths)
    updates, clips = (grid[1, column].subgridspec(leaves, 1) for column in (0, 1))
    draw_leaves(
        [figure.add_subplot(updates[leaf, 0]) for leaf in range(leaves)],
        [figure.add_subplot(clips[leaf, 0]) for leaf in range(leaves)],
        history,
    )
    figure.savefig(path, format="png")


def draw_loss(axes: Any, history: History) -> None:
    """Draw the loss of every batch, and its mean over the epoch that ends there."""
    steps, epoch = len(history.loss), len(history.loss) // len(history.test_accuracy)
    mean = np.convolve(history.loss, np.full(epoch, 1 / epoch), mode="valid")
    axes.plot(np.arange(1, steps + 1), history.loss, color="0.75", linewidth=0.8, label="each batch")
    ends = np.arange(epoch, steps + 1)
    axes.plot(ends, mean, color="black", marker="o", markersize=4, markevery=[-1], label="mean over an epoch")
    axes.set(ylabel="cross-entropy (nats)", yscale="log")
    axes.legend(frameon=False)
    finish(axes, steps, title="Training loss", xlabel="step")


def draw_accuracy(axes: Any, history: History) -> None:
    """Draw the accuracy after each epoch, on the images trained on and on the held-out ones."""
    steps, epochs = len(history.loss), len(history.test_accuracy)
    ends = np.arange(1, epochs + 1) * (steps // epochs)
    for values, colour, label in (
        (history.train_accuracy, "0.6", "training"),
        (history.test_accuracy, "black", "held out"),
    ):
        axes.plot(ends, 100 * values, color=colour, marker="o", markersize=4, label=label)
    axes.set(ylabel="digits recognised (%)")
    axes.legend(frameon=False, loc="best" if epochs > 1 else "center")
    finish(axes, steps, title="Accuracy after each epoch", xlabel="step")


def draw_leaves(update_strips: list[Any], clip_strips: list[Any], history: History) -> None:
    """Draw for each leaf, in its colour, the update rms and, as bars from 1, what clipping takes away."""
    count = len(history.loss)
    steps = np.arange(1, count + 1)
    low = history.update_rms[history.update_rms > 0].min(initial=0.1)  # a logarithmic axis leaves zeros out
    high = history.update_rms.max(initial=1)
    for leaf, (path, colour, update, clip) in enumerate(
        zip(history.paths, COLOURS, update_strips, clip_strips, strict=True)
    ):
        update.plot(steps, history.update_rms[:, leaf], color=colour, linewidth=1)
        update.axhline(1, color="black", linewidth=0.8, linestyle="--")
        update.set(yscale="log", ylim=(low / 1.5, high * 1.5))
        update.yaxis.set_major_formatter("{x:g}")
        update.yaxis.set_minor_formatter("")
        clip.vlines(steps, history.clip_factor[:, leaf], 1, color=colour, linewidth=1.5)
        clip.axhline(1, color=colour, linewidth=1)
        clip.set(ylim=(0, 1.1), yticks=(0, 1))
        for axes, title in (
            (update, "Update rms, no unit (dashed: where clipping begins)"),
            (clip, "Clip factor, no unit (1: nothing is clipped)"),
        ):
            axes.set_ylabel(path, color=colour, rotation=0, ha="right", va="center")
            first, last = leaf == 0, leaf == len(history.paths) - 1
            finish(axes, count, title=title if first else "", xlabel="step" if last else "")
            axes.tick_params(bottom=last, labelbottom=last)


def finish(axes: Any, steps: int, *, title: str, xlabel: str) -> None:
    """Give every plot the same steps, and take away what says nothing."""
    axes.set(title=title, xlabel=xlabel, xlim=(0, 1.01 * steps))
    axes.spines[["top", "right"]].set_visible(False)
    axes.locator_params(axis="x", integer=True)
    axes.grid(alpha=0.25)
