"""A small model that foretells the next byte of the documents here, for tests that train with torch."""

import importlib

from peers import require
from sources import ROOT

torch = require("torch")
Adafactor = importlib.import_module("adafactor.torch").Adafactor  # which loads torch, so not above

CONTEXT = 8
TEXT = b"".join(path.read_bytes() for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))])


def windows(count, length=CONTEXT + 1):
    """So many pieces of the text, one after the other, as numbers from 0 to 255."""
    found = torch.frombuffer(bytearray(TEXT[: count * length]), dtype=torch.uint8)
    return found.reshape(count, length).long()


STEPS = 10
BATCHES = windows(8 * STEPS).split(8)
"""One for each step."""


class NextByte(torch.nn.Module):
    """The mean loss of the last byte of each window, foretold from those before it. It has 7,472 weights."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embedding = torch.nn.Embedding(256, 8)
        self.hidden = torch.nn.Linear(8 * CONTEXT, 16)
        self.norm = torch.nn.LayerNorm(16)
        self.out = torch.nn.Linear(16, 256)

    def forward(self, batch):
        hidden = self.hidden(self.embedding(batch[:, :-1]).flatten(1))
        logits = self.out(torch.tanh(self.norm(hidden)))
        return torch.nn.functional.cross_entropy(logits, batch[:, -1])


def train(model, optimizer, batches=BATCHES):
    """The loop that everybody writes."""
    for batch in batches:
        optimizer.zero_grad()
        model(batch).backward()
        optimizer.step()


def weights(model):
    """A copy of its parameters by their names."""
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def state_of(optimizer):
    """The state of each parameter, as it is saved."""
    return optimizer.state_dict()["state"]


def counts(optimizer):
    """The updates that each parameter has had."""
    return [entry["step"].item() for entry in state_of(optimizer).values()]


def assert_same(found, expected):
    """That tensors in containers are the same to the bit."""
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
