"""What an earlier version has saved: states and an optimizer, each in the middle of a training.

`python tests/support/saved.py FOLDER` writes the files with the installed package. Those in tests/data/saved
were written by the commit that brought this file, and stay: later versions have to take them.
"""

import json
import pickle
import sys
from pathlib import Path

import numpy as np

import adafactor
from adafactor.schedules import CosineDecay

FOLDER = Path(__file__).parents[1] / "data" / "saved"
SHAPES = {"dense/kernel": (6, 4), "dense": {"bias": (4,)}, "convolution": (3, 3, 2, 5), "number": ()}
CALLS = 7  # in the middle of a window

STATES = {
    "accumulation": {"gradient_accumulation_steps": 4, "learning_rate": CosineDecay(0.1, 20)},
    "average": {"use_ema": True, "ema_overwrite_frequency": 3, "weight_decay": 0.01},
    "momentum": {"beta_1": 0.9, "momentum_dtype": "bfloat16", "count_updates": "leaf"},
}
OVERRIDES = [("bias", {"learning_rate": 0.5, "scale_parameter": False})]
OPTIMIZER = {"learning_rate": 0.05, "weight_decay": 0.004, "use_ema": True, "gradient_accumulation_steps": 2}


def numbers(seed, shapes=SHAPES):
    """A tree of arrays, the same on every machine."""
    if isinstance(shapes, dict):
        return {key: numbers(seed + i, each) for i, (key, each) in enumerate(shapes.items())}
    return np.cos(np.arange(seed, seed + np.prod(shapes, dtype=int), dtype=np.float32)).reshape(shapes)


def trained(knobs, overrides=()):
    """Parameters and their state after some calls."""
    params = numbers(0)
    state = adafactor.init(params, overrides=overrides, **knobs)
    for call in range(CALLS):
        adafactor.step(params, numbers(10 * call), state)
    return params, state


def optimizer_of(params):
    """An optimizer in Keras' shape, built with these arrays."""
    optimizer = adafactor.Adafactor(**OPTIMIZER)
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    optimizer.build(params)
    return optimizer


def main(folder):
    for name in STATES:
        params, state = trained(STATES[name], OVERRIDES if name == "average" else ())
        (folder / f"{name}.pickle").write_bytes(pickle.dumps((params, state), protocol=4))
        arrays = {f"{kind} {path}": array for (path, kind), array in state.arrays().items()}
        arrays = {key: a.view(np.uint16) if a.itemsize == 2 else a for key, a in arrays.items()}
        counters = np.array([state.iterations, state.calls, *state.leaf_updates])
        np.savez(folder / f"{name}.npz", counters=counters, **arrays)
    params, store = numbers(0), {}
    optimizer = optimizer_of(params)
    for call in range(CALLS):
        optimizer.apply(numbers(10 * call))
    optimizer.save_own_variables(store)
    np.savez(folder / "store.npz", **store)
    np.savez(folder / "list.npz", *optimizer.variables)
    (folder / "config.json").write_text(json.dumps(optimizer.get_config(), indent=1) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
