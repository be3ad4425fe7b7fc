"""The golden numbers of tests/data/trajectories.json, and the knobs that say what the call of each row says.

The knobs are spelled out one by one, so that a mistake in a preset cannot hide in both places.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

DATA = json.loads((Path(__file__).parents[1] / "data" / "trajectories.json").read_text())
TOLERANCE = 1e-6  # the file has seven digits; the libraries that it comes from compute in float32

# Three libraries round more to bfloat16 than the momentum that they store: timm and pytorch_optimizer the
# update before it is averaged, big_vision beta_1 and its product with the momentum. That is half a unit of
# eight bits, 2^-10 for a momentum below 0.5, in each of three steps of 0.01.
BFLOAT16_TOLERANCE = 3 * 0.01 * 2**-10
ROUNDED_ELSEWHERE = (
    "timm_big_vision(lr=0.01)",
    "big_vision(min_dim_size_to_factor=1, lr=0.01, momentum bfloat16)",
    "pytorch_optimizer() (bfloat16 momentum)",
)

KERAS = {"relative_step": "always", "ema_on": "call"}
TORCH = {"relative_step": "always", "learning_rate": 0.01, "epsilon_1": None, "epsilon_1_mode": "clamp",
         "count_updates": "leaf", "weight_decay_first": False}  # fmt: skip
TRANSFORMERS = {"learning_rate": 0.01, "count_updates": "leaf", "weight_decay_on": "step"}
OPTAX = {"learning_rate": 0.01, "relative_step": False, "factored": "largest_two",
         "min_dim_size_to_factor": 1, "weight_decay_on": "none", "weight_decay_first": False}  # fmt: skip
TIMM = {"learning_rate": 0.01, "count_updates": "leaf", "factored": "leading_two_or_last_two",
        "min_dim_size_to_factor": 17, "weight_decay_on": "step"}  # fmt: skip
BIG_VISION = {"learning_rate": 0.01, "relative_step": False, "beta_2_cap": 0.999, "scale_parameter": False,
              "clip_threshold": None, "beta_1": 0.9, "momentum_on": "update", "factored": "largest_two",
              "min_dim_size_to_factor": 1}  # fmt: skip
PYTORCH_OPTIMIZER = {"learning_rate": 0.01, "beta_2_cap": 0.999, "count_updates": "leaf"}

KERAS_KNOBS = {
    "keras(learning_rate=0.001)": {"learning_rate": 0.001},
    "keras(learning_rate=0.01)": {"learning_rate": 0.01},
    "keras(learning_rate=0.01, loss_scale_factor=8.0) with gradients times 8": {
        "learning_rate": 0.01, "loss_scale_factor": 8.0},
    "keras(learning_rate=0.5, clip_threshold=0.7, beta_2_decay=-0.65, epsilon_2=1e-4)": {
        "learning_rate": 0.5, "clip_threshold": 0.7, "beta_2_decay": -0.65, "epsilon_2": 1e-4},
    "keras(learning_rate=0.01, weight_decay=0.1, clipnorm=0.5)": {
        "learning_rate": 0.01, "weight_decay": 0.1, "clipnorm": 0.5},
    "keras(learning_rate=0.01, global_clipnorm=0.5)": {"learning_rate": 0.01, "global_clipnorm": 0.5},
    "keras(learning_rate=0.01, clipvalue=0.3)": {"learning_rate": 0.01, "clipvalue": 0.3},
    "keras(learning_rate=0.01, use_ema=True, ema_momentum=0.5, ema_overwrite_frequency=2)": {
        "learning_rate": 0.01, "use_ema": True, "ema_momentum": 0.5, "ema_overwrite_frequency": 2},
    "keras(learning_rate=0.01, gradient_accumulation_steps=3)": {
        "learning_rate": 0.01, "gradient_accumulation_steps": 3},
}  # fmt: skip

OTHER_KNOBS = {
    "torch()": TORCH,
    "torch(lr=0.1, weight_decay=0.1)": {**TORCH, "learning_rate": 0.1, "weight_decay": 0.1},
    "transformers()": TRANSFORMERS,
    "transformers(warmup_init=True)": {**TRANSFORMERS, "warmup_init": True},
    "transformers(lr=0.01, relative_step=False, scale_parameter=False)": {
        **TRANSFORMERS, "relative_step": False, "scale_parameter": False},
    "transformers(lr=0.01, relative_step=False, scale_parameter=True, beta1=0.9, weight_decay=0.1)": {
        **TRANSFORMERS, "relative_step": False, "beta_1": 0.9, "weight_decay": 0.1},
    "optax(learning_rate=0.01, min_dim_size_to_factor=1)": OPTAX,
    "optax(learning_rate=0.01, min_dim_size_to_factor=128) (both leaves unfactored)": {
        **OPTAX, "min_dim_size_to_factor": 128},
    "optax(learning_rate=0.01, min_dim_size_to_factor=1, momentum=0.9, weight_decay_rate=0.01)": {
        **OPTAX, "beta_1": 0.9, "weight_decay": 0.01},
    "timm()": TIMM,
    "timm(min_dim_size_to_factor=1, lr=0.01, betas=(0.9, 0.999), weight_decay=0.1)": {
        **TIMM, "relative_step": False, "scale_parameter": False, "min_dim_size_to_factor": 2,
        "beta_1": 0.9, "weight_decay": 0.1},
    "timm_big_vision(lr=0.01)": {**BIG_VISION, "min_dim_size_to_factor": 16, "momentum_dtype": "bfloat16"},
    "timm_big_vision(min_dim_size_to_factor=1, lr=0.01, momentum_dtype=float32, clipping_threshold=1.0)": {
        **BIG_VISION, "clip_threshold": 1.0},
    "big_vision(min_dim_size_to_factor=1, lr=0.01, momentum float32)": {
        **BIG_VISION, "momentum_use": "exact"},
    "big_vision(min_dim_size_to_factor=1, lr=0.01, momentum bfloat16)": {
        **BIG_VISION, "momentum_dtype": "bfloat16", "momentum_use": "exact"},
    "pytorch_optimizer(betas=(None, 0.999))": PYTORCH_OPTIMIZER,
    "pytorch_optimizer() (bfloat16 momentum)": {
        **PYTORCH_OPTIMIZER, "beta_1": 0.9, "momentum_dtype": "bfloat16"},
}  # fmt: skip

KNOBS = {**{call: {**KERAS, **knobs} for call, knobs in KERAS_KNOBS.items()}, **OTHER_KNOBS}

# After three steps: call -> {leaf: values}. A row of the file stands for every call that it lists.
EXPECTED = {
    call: {"A": np.array(row["A"]), "b": np.array(row["b"])}
    for row in DATA["trajectory"]["after_3_steps"]
    for call in row["config"].split("; ")
}


def start():
    """The two leaves that every row starts from, in float32."""
    trajectory = DATA["trajectory"]
    return {"A": np.array(trajectory["A0"], np.float32), "b": np.array(trajectory["b0"], np.float32)}


def gradients(k, call):
    """The gradients of step k = 0, 1, 2 in float32, scaled as a scaled loss would."""
    i, j = np.arange(2)[:, None], np.arange(4)
    scale = np.float32(KNOBS[call].get("loss_scale_factor", 1))
    a, b = np.sin(1 + 3 * i + j[:3] + 7 * k), np.cos(1 + j + 5 * k)
    return {"A": scale * a.astype(np.float32), "b": scale * b.astype(np.float32)}


def tolerance(call):
    """How far the parameters may be from the row of this call."""
    return BFLOAT16_TOLERANCE if call in ROUNDED_ELSEWHERE else TOLERANCE


@dataclass(frozen=True)
class Example:
    """A test of Keras' own: its arguments and the parameters after each step, None where it does not look."""

    name: str
    arguments: dict
    excluded: tuple
    params: dict
    gradients: list
    expected: list


def keras_examples():
    """Keras' test values for its Adafactor; the leaf of every example is called p."""
    keras = DATA["keras"]
    one, two, five, decay = (
        keras[name] for name in ("one_step_1d", "one_step_2d", "five_steps", "weight_decay")
    )
    rate = {"learning_rate": one["learning_rate"]}
    knobs = ("learning_rate", "beta_2_decay", "epsilon_1", "epsilon_2", "clip_threshold")
    decaying = {name: decay[name] for name in ("learning_rate", "weight_decay")}
    later = [five["later_gradients"]] * (len(five["after"]) - 1)
    idle, unseen = [decay["g"]] * decay["steps"], [None] * (decay["steps"] - 1)
    return [
        example("one step 1d", rate, (), one["p"], [one["g"]], [one["after"]]),
        example("one step 2d", rate, (), two["p"], [two["g"]], [two["after"]]),
        example("five steps", {name: five[name] for name in knobs}, (), five["p"],
                [five["first_gradient"], *later], five["after"]),
        example("decays", decaying, (), decay["p"], idle, [*unseen, decay["after"]]),
        example("excluded", decaying, ("^p$",), decay["p"], idle, [*unseen, decay["excluded"]]),
    ]  # fmt: skip


def example(name, arguments, excluded, params, gradients, expected):
    def leaf(x):
        return None if x is None else {"p": np.array(x, np.float32)}

    return Example(name, arguments, excluded, leaf(params), [*map(leaf, gradients)], [*map(leaf, expected)])


# t5x' tests start from moments that they write themselves, one update after the first.
T5X = DATA["t5x_injected_state"]
T5X_KNOBS = {"learning_rate": T5X["learning_rate"], "relative_step": False,
             "beta_2_decay": -T5X["decay_rate"], "factored": "largest_two",
             "min_dim_size_to_factor": T5X["min_dim_size_to_factor"]}  # fmt: skip
T5X_CASES = [
    ("factored", {}, {"row": T5X["v_row"], "col": T5X["v_col"]}, T5X["after"]),
    ("unfactored", {"factored": False, "beta_1": T5X["unfactored"]["beta1"]},
     {"full": T5X["unfactored"]["v"], "momentum": T5X["unfactored"]["m"]}, T5X["unfactored"]["after"]),
    ("global norm", {"global_clipnorm": 1.0}, {"row": T5X["v_row"], "col": T5X["v_col"]},
     T5X["global_norm_clip_1"]["after"]),
]  # fmt: skip
T5X_NAMES = {"row": "v_row", "col": "v_col", "full": "v", "momentum": "m"}
