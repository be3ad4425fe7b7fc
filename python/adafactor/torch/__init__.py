"""Adafactor as an optimizer of torch: importing this module loads torch."""

from adafactor.torch.backward import FusedBackward
from adafactor.torch.optimizer import Adafactor

__all__ = ["Adafactor", "FusedBackward"]
