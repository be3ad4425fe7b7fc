"""A network in plain NumPy, forward and backward by hand, and the two calls that train it: an example.

`adafactor.init` makes the state, `adafactor.step` updates the parameters in place. scikit-learn has the
digits, tqdm the progress bar; both are imported where they are used.
"""

import itertools
import math
import sys
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
