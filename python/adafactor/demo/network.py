"""A network in plain NumPy, forward and backward by hand, and the two calls that train it: an example.

`adafactor.init` makes the state, `adafactor.step` updates the parameters in place.
"""

import itertools
import math
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

import adafactor
from adafactor.schedules import CosineDecay

Array = NDArray[Any]
Parameters = dict[str, dict[str, Array]]  # layer -> "weight" or "bias" -> array

LAYER_SIZES = (64, 512, 256, 10)  # pixels, two hidden layers, digits


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


class Network:
    """The network, trained in place by Adafactor, whose rate falls to 0 along half a cosine."""

    def __init__(self, parameters: Parameters, learning_rate: float, steps: int) -> None:
        self.parameters = parameters
        self.state = adafactor.init(parameters, learning_rate=CosineDecay(learning_rate, steps))

    @property
    def state_nbytes(self) -> int:
        """Bytes of the optimizer's state."""
        return self.state.nbytes

    def step(self, images: Array, labels: Array) -> tuple[float, adafactor.StepReport]:
        """Learn from a batch; return its loss before, and what the optimizer says of the step."""
        activations = forward(self.parameters, images)
        loss, error = cross_entropy(activations[-1], labels)
        gradients = backward(self.parameters, activations, error)
        return loss, adafactor.step(self.parameters, gradients, self.state)  # changes parameters and state

    def accuracy(self, images: Array, labels: Array) -> float:
        """The share of the images whose highest score is that of their label."""
        return float((forward(self.parameters, images)[-1].argmax(axis=1) == labels).mean())
