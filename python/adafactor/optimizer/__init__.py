"""Adafactor as an object in Keras' shape."""

from adafactor.optimizer.optimizer import Adafactor

__all__ = ["Adafactor"]
