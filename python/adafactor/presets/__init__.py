"""Configs that do what other libraries' Adafactor does, from the arguments that those libraries take."""

from adafactor.presets.big_vision import big_vision
from adafactor.presets.keras import keras
from adafactor.presets.optax import optax
from adafactor.presets.pytorch_optimizer import pytorch_optimizer
from adafactor.presets.t5x import t5x
from adafactor.presets.timm import timm
from adafactor.presets.timm_big_vision import timm_big_vision
from adafactor.presets.torch import torch
from adafactor.presets.transformers import transformers

__all__ = [
    "big_vision",
    "keras",
    "optax",
    "pytorch_optimizer",
    "t5x",
    "timm",
    "timm_big_vision",
    "torch",
    "transformers",
]
