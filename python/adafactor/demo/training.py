"""A training on handwritten digits, whatever network it is that learns: batches, progress bar and history.

scikit-learn has the digits, tqdm the progress bar; both are imported where they are used.
"""

import sys
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

import adafactor

Array = NDArray[Any]

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


class Network(Protocol):
    """What is trained."""

    @property
    def state_nbytes(self) -> int:
        """Bytes of the optimizer's state."""

    def step(self, images: Array, labels: Array) -> tuple[float, adafactor.StepReport]:
        """Learn from a batch; return its loss before, and what the optimizer says of the step."""

    def accuracy(self, images: Array, labels: Array) -> float:
        """The share of the images whose highest score is that of their label."""


class History(NamedTuple):
    """The course of a training: per step the loss and, leaf by leaf, the report; per epoch the accuracies."""

    paths: tuple[str, ...]  # of the leaves
    loss: Array  # (steps,), nats
    update_rms: Array  # (steps, leaves)
    clip_factor: Array  # (steps, leaves)
    train_accuracy: Array  # (epochs,), from 0 to 1
    test_accuracy: Array  # (epochs,), from 0 to 1
    state_nbytes: int


def steps_of(digits: Digits, epochs: int) -> int:
    """The steps of a training."""
    return epochs * (len(digits.train_images) // BATCH_SIZE)


def train(network: Network, digits: Digits, *, epochs: int, generator: np.random.Generator) -> History:
    """Train the network in shuffled batches, with a progress bar on stderr."""
    from tqdm import tqdm  # type: ignore[import-untyped,unused-ignore]

    batches = steps_of(digits, 1)
    losses, reports, train_accuracy, test_accuracy = [], [], [], []

    pause = 0.1 if sys.stderr.isatty() else 60.0  # a log gets a line now and then and the last one
    with tqdm(total=epochs * batches, unit="step", mininterval=pause) as bar:  # fits in 80 columns
        for _ in range(epochs):
            order = generator.permutation(len(digits.train_images))
            for batch in np.array_split(order, batches):
                loss, report = network.step(digits.train_images[batch], digits.train_labels[batch])
                losses.append(loss)
                reports.append(report)
                bar.update()
            train_accuracy.append(network.accuracy(digits.train_images, digits.train_labels))
            test_accuracy.append(network.accuracy(digits.test_images, digits.test_labels))
            mean = np.mean(losses[-batches:])
            bar.set_postfix(loss=f"{mean:.4f}", accuracy=f"{test_accuracy[-1]:.1%}", refresh=False)

    return History(
        paths=tuple(reports[-1].paths),
        loss=np.array(losses),
        update_rms=np.array([report.update_rms for report in reports]),
        clip_factor=np.array([report.clip_factor for report in reports]),
        train_accuracy=np.array(train_accuracy),
        test_accuracy=np.array(test_accuracy),
        state_nbytes=network.state_nbytes,
    )
