"""The same network as a module of torch, trained by its optimizer and a scheduler: an example, too."""

import itertools
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import adafactor.torch

Array = NDArray[Any]


class Network:
    """The network, trained by Adafactor, whose rate falls to 0 along half a cosine."""

    def __init__(self, parameters: dict[str, dict[str, Array]], learning_rate: float, steps: int) -> None:
        """Begin with the parameters of the network in NumPy, whose weights are (inputs, outputs)."""
        linears, named = [], []
        for name, layer in parameters.items():
            linear = torch.nn.Linear(*layer["weight"].shape)
            with torch.no_grad():
                linear.weight.copy_(torch.from_numpy(layer["weight"].T))
                linear.bias.copy_(torch.from_numpy(layer["bias"]))
            linears.append(linear)
            named += [(f"{name}/weight", linear.weight), (f"{name}/bias", linear.bias)]
        between = itertools.chain.from_iterable((torch.nn.ReLU(), linear) for linear in linears[1:])
        self.model = torch.nn.Sequential(linears[0], *between)
        self.optimizer = adafactor.torch.Adafactor(named, lr=learning_rate)
        self.scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, steps)

    @property
    def state_nbytes(self) -> int:
        """Bytes of the optimizer's state."""
        return sum(array.nbytes for entry in self.optimizer.state.values() for array in entry.values())

    def step(self, images: Array, labels: Array) -> tuple[float, adafactor.StepReport]:
        """Learn from a batch; return its loss before, and what the optimizer says of the step."""
        loss = torch.nn.functional.cross_entropy(
            self.model(torch.from_numpy(images)), torch.from_numpy(labels)
        )
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self.scheduler.step()
        assert self.optimizer.report is not None
        return loss.item(), self.optimizer.report

    def accuracy(self, images: Array, labels: Array) -> float:
        """The share of the images whose highest score is that of their label."""
        with torch.no_grad():
            scores = self.model(torch.from_numpy(images)).numpy()
        return float((np.argmax(scores, axis=1) == labels).mean())
