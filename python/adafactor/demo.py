"""Train a small neural network on handwritten digits with Adafactor, and draw what the optimizer reports.

Run it with `python -m adafactor demo`. The first half, down to `train`, is an example to copy from: a network
in plain NumPy, forward and backward by hand, and the two calls that train it, `adafactor.init` and
`adafactor.step`. The second half is the command and its picture. scikit-learn has the digits, tqdm the
progress bar, matplotlib the picture; each is imported where it is used, and `pip install "adafactor[demo]"`
brings all three.
"""

import argparse
import importlib.util
import itertools
import math
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

import adafactor
from adafactor.schedules import CosineDecay

Array = NDArray[Any]
Parameters = dict[str, dict[str, Array]]  # layer -> "weight" or "bias" -> array

LAYER_SIZES = (64, 512, 256, 10)  # pixels, two hidden layers, digits
BATCH_SIZE = 64


class Digits(NamedTuple):
    """Images as rows of 64 pixels from 0 to 1, float32, and labels from 0 to 9."""

    train_images: Array
    train_labels: Array
    test_images: Array
    test_labels: Array


def load_digits() -> Digits:
    """Return scikit-learn's 1,797 digits, a fifth of each held out for the test."""
    import sklearn.datasets  # type: ignore[import-untyped,unused-ignore]
    import sklearn.model_selection  # type: ignore[import-untyped,unused-ignore]

    images, labels = sklearn.datasets.load_digits(return_X_y=True)
    train_images, test_images, train_labels, test_labels = sklearn.model_selection.train_test_split(
        (images / 16).astype(np.float32), labels, test_size=0.2, random_state=0, stratify=labels
    )
    return Digits(train_images, train_labels, test_images, test_labels)


def make_network(generator: np.random.Generator, dtype: DTypeLike = np.float32) -> Parameters:
    """Return the parameters of dense layers: normal weights with variance 2 / inputs, biases 0."""
    parameters: Parameters = {}
    for number, (inputs, outputs) in enumerate(itertools.pairwise(LAYER_SIZES), start=1):
        weight = generator.normal(0.0, math.sqrt(2 / inputs), size=(inputs, outputs))
        parameters[f"layer_{number}"] = {"weight": weight.astype(dtype), "bias": np.zeros(outputs, dtype)}
    return parameters


def forward(parameters: Parameters, images: Array) -> list[Array]:
    """Return the inputs of all layers and, last, the network's output: a score for each image and digit."""
    *hidden, last = parameters.values()
    activations = [images]
    for layer in hidden:
        activations.append(np.maximum(activations[-1] @ layer["weight"] + layer["bias"], 0))
    activations.append(activations[-1] @ last["weight"] + last["bias"])
    return activations


def cross_entropy(scores: Array, labels: Array) -> tuple[float, Array]:
    """Return the mean of -log(probability of the label), and its gradient in the scores."""
    scores = scores - scores.max(axis=1, keepdims=True)
    log_probabilities = scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))
    rows = np.arange(len(labels))
    error = np.exp(log_probabilities)
    error[rows, labels] -= 1
    return -float(log_probabilities[rows, labels].mean()), error / len(labels)


def backward(parameters: Parameters, activations: list[Array], error: Array) -> Parameters:
    """Return the gradient in every parameter, given the one in the scores, last layer first."""
    gradients: Parameters = {}
    for name, inputs in zip(reversed(parameters), reversed(activations[:-1]), strict=True):
        gradients[name] = {"weight": inputs.T @ error, "bias": error.sum(axis=0)}
        error = (error @ parameters[name]["weight"].T) * (inputs > 0)
    return gradients


def accuracy(parameters: Parameters, images: Array, labels: Array) -> float:
    """Return the share of the images whose highest score is that of their label."""
    return float((forward(parameters, images)[-1].argmax(axis=1) == labels).mean())


class History(NamedTuple):
    """The course of a training: per step the loss and, leaf by leaf, the report; per epoch the accuracies."""

    paths: tuple[str, ...]  # of the leaves
    loss: Array  # (steps,), nats
    update_rms: Array  # (steps, leaves)
    clip_factor: Array  # (steps, leaves)
    train_accuracy: Array  # (epochs,), from 0 to 1
    test_accuracy: Array  # (epochs,), from 0 to 1
    state_nbytes: int


def train(
    parameters: Parameters,
    digits: Digits,
    *,
    epochs: int,
    learning_rate: float,
    generator: np.random.Generator,
) -> History:
    """Train the network in place, in shuffled batches, with a progress bar on stderr."""
    from tqdm import tqdm  # type: ignore[import-untyped,unused-ignore]

    batches = len(digits.train_images) // BATCH_SIZE
    state = adafactor.init(parameters, learning_rate=CosineDecay(learning_rate, epochs * batches))
    losses, reports, train_accuracy, test_accuracy = [], [], [], []

    pause = 0.1 if sys.stderr.isatty() else 60.0  # a log gets a line now and then and the last one
    with tqdm(total=epochs * batches, unit="step", mininterval=pause) as bar:  # fits in 80 columns
        for _ in range(epochs):
            order = generator.permutation(len(digits.train_images))
            for batch in np.array_split(order, batches):
                activations = forward(parameters, digits.train_images[batch])
                loss, error = cross_entropy(activations[-1], digits.train_labels[batch])
                gradients = backward(parameters, activations, error)
                reports.append(adafactor.step(parameters, gradients, state))  # changes parameters and state
                losses.append(loss)
                bar.update()
            train_accuracy.append(accuracy(parameters, digits.train_images, digits.train_labels))
            test_accuracy.append(accuracy(parameters, digits.test_images, digits.test_labels))
            mean = np.mean(losses[-batches:])
            bar.set_postfix(loss=f"{mean:.4f}", accuracy=f"{test_accuracy[-1]:.1%}", refresh=False)

    return History(
        paths=tuple(reports[-1].paths),
        loss=np.array(losses),
        update_rms=np.array([report.update_rms for report in reports]),
        clip_factor=np.array([report.clip_factor for report in reports]),
        train_accuracy=np.array(train_accuracy),
        test_accuracy=np.array(test_accuracy),
        state_nbytes=state.nbytes,
    )


# From here on: the picture and the command.

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


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Give a parser the options of the demo."""
    parser.add_argument("--epochs", type=positive_integer, default=20, help="passes over the training images")
    parser.add_argument(
        "--learning-rate",
        type=positive_number,
        default=0.02,
        help="at the first step; from there it falls to 0 along half a cosine",
    )
    parser.add_argument("--out", type=Path, default="adafactor-demo.png", help="the picture to write, a PNG")
    parser.add_argument("--seed", type=seed, default=0, help="of the first weights and of the shuffling")


def positive_integer(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text}, expected at least 1")
    return value


def seed(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text}, expected at least 0")
    return value


def positive_number(text: str) -> float:
    value = float(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text}, expected a finite number above 0")
    return value


def obstacle(out: Path) -> str | None:
    """Return in one sentence what will keep the demo from coming to its end, if anything will."""
    needed = {"sklearn": "scikit-learn", "tqdm": "tqdm", "matplotlib": "matplotlib"}
    missing = [name for module, name in needed.items() if importlib.util.find_spec(module) is None]
    if missing:
        return f'the demo needs {" and ".join(missing)}: pip install "adafactor[demo]"'
    try:
        new = not out.exists()
        out.open("ab").close()
        if new:
            out.unlink()
    except OSError as error:
        return f"--out {out} cannot be written: {error.strerror}"
    return None


def run(options: argparse.Namespace) -> int:
    """Train, print and draw; return the exit code: 0, or 1 if it diverged, 2 if it could not begin."""
    problem = obstacle(options.out)
    if problem:
        print(f"adafactor demo: {problem}", file=sys.stderr)
        return 2
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped,unused-ignore]  # with scikit-learn

    digits = load_digits()
    generator = np.random.default_rng(options.seed)
    parameters = make_network(generator)
    try:
        # For matrices this small, threads on busy processors wait for each other more than they work.
        with threadpool_limits(1):
            history = train(
                parameters,
                digits,
                epochs=options.epochs,
                learning_rate=options.learning_rate,
                generator=generator,
            )
    except FloatingPointError as error:
        print(
            f"adafactor demo: the training diverged, try a smaller --learning-rate: {error}", file=sys.stderr
        )
        return 1

    accuracy, images = history.test_accuracy[-1], len(digits.test_labels)
    count = sum(array.size for layer in parameters.values() for array in layer.values())
    adam = 2 * 4 * count  # bytes: two float32 moments for each parameter
    ratio = adam / history.state_nbytes
    print(f"test accuracy  {accuracy:.4f} on {images} held-out digits")
    print(f"parameters     {count:,}, float32")
    print(f"state          {history.state_nbytes:,} bytes")
    print(f"state of Adam  {adam:,} bytes, {ratio:.0f} times as many")
    title = f"Adafactor on handwritten digits: {accuracy:.1%} recognised with 1/{ratio:.0f} of Adam's state"
    draw(history, title, options.out)
    print(f"picture        {options.out}")
    return 0
