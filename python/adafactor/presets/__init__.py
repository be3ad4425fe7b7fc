"""Configs that do what other libraries' Adafactor does, from the arguments that those libraries take."""

from adafactor.presets.keras import keras

__all__ = ["keras"]
