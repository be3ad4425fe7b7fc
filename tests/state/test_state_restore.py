"""A state that is put together from a counter and arrays goes on as the one that was taken apart."""

import numpy as np
import pytest

import adafactor
import documents
import peers
import snapshots
import sources

KNOBS = {
    "beta_1": 0.9,
    "momentum_dtype": "bfloat16",
    "use_ema": True,
    "gradient_accumulation_steps": 2,
    "count_updates": "leaf",
}


def numbers(shape, seed):
    return np.asarray(np.random.default_rng(seed).standard_normal(shape), np.float32)


def tree(seed):
    return {"w": numbers((5, 3), seed), "b": numbers(3, seed + 1)}


def trained(calls, **knobs):
    params = tree(0)
    state = adafactor.init(params, **knobs)
    for call in range(calls):
        adafactor.step(params, tree(10 + call), state)
    return params, state


@pytest.mark.parametrize("knobs", [{}, KNOBS, {"factored": "largest_two"}], ids=["plain", "all", "largest"])
@pytest.mark.parametrize("calls", [0, 1, 4, 5])
def test_goes_on_the_same(knobs, calls):
    params, state = trained(calls, **knobs)
    other = adafactor.init(params, **knobs)
    other.restore(state.calls, state.tensors(), state.leaf_updates)
    assert snapshots.of_state(other) == snapshots.of_state(state)
    others = {name: p.copy() for name, p in params.items()}
    for call in range(3):
        adafactor.step(params, tree(20 + call), state)
        adafactor.step(others, tree(20 + call), other)
    assert snapshots.same_bits(params.values(), others.values())
    assert snapshots.of_state(other) == snapshots.of_state(state)


def test_a_leaf_that_gathered_something_is_updated_from_it():
    """In an open window the accumulators tell which leaves have had a gradient."""
    params, state = trained(2, gradient_accumulation_steps=2)
    with pytest.warns(UserWarning, match="no gradient for b"):
        adafactor.step(params, tree(5) | {"b": None}, state)
    other = adafactor.init(params, gradient_accumulation_steps=2)
    other.restore(state.calls, state.tensors())
    others = {name: p.copy() for name, p in params.items()}
    for run in ((params, state), (others, other)):
        with pytest.warns(UserWarning, match="no gradient for w, b|no gradient for w"):
            adafactor.step(run[0], {"w": None, "b": tree(6)["b"]}, run[1])
    assert snapshots.same_bits(params.values(), others.values())


def test_a_momentum_in_bfloat16_is_taken_by_its_bits():
    import ml_dtypes

    _, state = trained(1, beta_1=0.9, momentum_dtype="bfloat16")
    other = adafactor.init(tree(0), beta_1=0.9, momentum_dtype="bfloat16")
    for view in (np.uint16, ml_dtypes.bfloat16, "V2"):
        tensors = {key: t.view(view) if key[1] == "momentum" else t for key, t in state.tensors().items()}
        other.restore(state.calls, tensors)
        assert snapshots.of_state(other) == snapshots.of_state(state)
        other = adafactor.init(tree(0), beta_1=0.9, momentum_dtype="bfloat16")
    for dtype in (np.float32, np.float16):
        wrong = {key: t.astype(dtype) if key[1] == "momentum" else t for key, t in state.tensors().items()}
        with pytest.raises(
            TypeError, match=r"^tensors w momentum: dtype float.., expected bfloat16 or its bits"
        ):
            other.restore(1, wrong)


def test_everything_is_checked_before_anything_is_written():
    _, source = trained(2)
    params, state = trained(1)
    tensors, before = source.tensors(), snapshots.of_state(state)
    short = {key: tensor for key, tensor in tensors.items() if key != ("b", "full")}
    for arguments, error, message in (
        ((-1, tensors), ValueError, r"^calls: -1, expected a whole number >= 0$"),
        ((1.0, tensors), TypeError, r"^calls: 1.0, expected a whole number$"),
        ((2, short), ValueError, r"^tensors b full: missing$"),
        ((2, tensors | {("b", "row"): 0}), ValueError, r"^tensors b row: not in the state$"),
        ((2, tensors | {("b", "full"): np.zeros(4)}), ValueError, r"^tensors b full: shape \(4,\), expected"),
        (
            (2, tensors | {("b", "full"): np.zeros(3, bool)}),
            TypeError,
            r"^tensors b full: dtype bool, expected",
        ),
        ((2, tensors, [1]), ValueError, r"^updates: 1 numbers, expected 2$"),
        ((2, tensors, {"w": 1}), ValueError, r"^updates b: missing$"),
        ((2, tensors, {"w": 1, "b": 1, "c": 1}), ValueError, r"^updates c: not in the state$"),
        ((2, tensors, [1, -1]), ValueError, r"^updates: -1, expected a whole number >= 0$"),
    ):
        with pytest.raises(error, match=message):
            state.restore(*arguments)
        assert snapshots.of_state(state) == before
    with state._engine.in_use(), pytest.raises(RuntimeError, match=r"^state in use"):
        state.restore(2, tensors)
    with state._engine.in_use(), pytest.raises(RuntimeError, match=r"^state in use"):
        state.set_learning_rate(0.1)
    assert adafactor.step(params, tree(1), state).updated


def test_a_learning_rate_that_is_set_counts_from_the_next_call():
    params, state = trained(2, learning_rate=0.01)
    state.set_learning_rate(0.002)
    assert state.config.learning_rate == 0.002
    assert adafactor.step(params, tree(1), state).learning_rate == 0.002
    state.set_learning_rate(adafactor.schedules.ExponentialDecay(0.5, 3, 0.5))
    assert adafactor.step(params, tree(1), state).learning_rate == 0.25
    with pytest.raises(ValueError, match=r"^learning_rate: -1"):
        state.set_learning_rate(-1)
    assert adafactor.step(params, tree(1), state).learning_rate < 0.25


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, -1.0, 1e39])
@pytest.mark.parametrize("kind", ["row", "col", "full", "momentum", "average", "accumulator"])
@pytest.mark.parametrize("small", [False, True])
def test_numbers_that_would_spoil_the_parameters_are_refused(kind, bad, small):
    """A store that was cut, or of a run that had diverged: the next step would make NaN of a leaf."""
    import ml_dtypes

    knobs = KNOBS | {"momentum_dtype": "bfloat16" if small else "float32"}
    _, source = trained(3, **knobs)
    _, state = trained(1, **knobs)
    key = ("b" if kind == "full" else "w", kind)
    array = source.tensors()[key]
    wrong = array.astype(np.float64 if array.dtype.itemsize == 4 else ml_dtypes.bfloat16, copy=True)
    with np.errstate(over="ignore"):
        wrong.flat[2] = bad
    before, tensors = snapshots.of_state(state), source.tensors() | {key: wrong}
    if bad == -1 and kind not in ("row", "col", "full"):
        return state.restore(3, tensors)  # may well be
    with pytest.raises(
        ValueError, match=rf"^tensors {' '.join(key)}: 1 of \d+ values are not finite numbers"
    ):
        state.restore(3, tensors)
    assert snapshots.of_state(state) == before
    return None


def test_what_was_let_into_a_state_goes_back_into_it():
    """With `propagate` a NaN goes through; then `stateless_apply`, too, goes on as `apply` does."""
    optimizer, twin = (adafactor.Adafactor(beta_1=0.9, on_nonfinite="propagate") for _ in range(2))
    params, others = tree(0), tree(0)
    bad = tree(1) | {"b": np.full(3, np.nan, np.float32)}
    optimizer.build(params)
    twin.build(others)
    values = twin.variables
    for grads in (tree(2), bad, tree(3)):
        optimizer.apply(grads)
        others, values = twin.stateless_apply(values, grads, others)
    assert np.isnan(params["b"]).all()
    assert snapshots.same_bits(others.values(), params.values())
    assert snapshots.same_bits(values, optimizer.variables)


def documented(*names):
    """The functions that docs/guide/start.md defines."""
    (block,) = (
        body
        for program in documents.programs(sources.ROOT / "docs/guide/start.md", "python")
        for _, body, _ in program.blocks
        if "def taken_apart" in body
    )
    namespace = {"np": np, "adafactor": adafactor}
    exec(block[: block.index("np.savez")], namespace)
    return [namespace[name] for name in names]


def through_numpy(flat, folder):
    np.savez(folder / "state.npz", **flat)
    return np.load(folder / "state.npz")


def through_torch(flat, folder):
    torch = peers.require("torch")
    torch.save({key: torch.as_tensor(array) for key, array in flat.items()}, folder / "state.pt")
    return torch.load(folder / "state.pt")


def through_safetensors(flat, folder):
    numpy = peers.require("safetensors.numpy")
    numpy.save_file(flat, folder / "state.safetensors")
    return numpy.load_file(folder / "state.safetensors")


@pytest.mark.parametrize("library", ["numpy", "torch", "jax"])
@pytest.mark.parametrize("carry", [through_numpy, through_torch, through_safetensors])
def test_the_dict_of_the_guide_goes_through_every_format(carry, library, tmp_path):
    """In an open window of accumulation, with a momentum in bfloat16 and counts of each leaf."""
    taken_apart, put_together = documented("taken_apart", "put_together")
    made = {"numpy": np.asarray, "torch": lambda a: peers.require("torch").tensor(a)}.get(
        library, lambda a: peers.require("jax.numpy").asarray(a)
    )
    shapes = {"deep": {"w": (3, 4, 5)}, "a/b": (6,), "number": ()}
    params = shapes_to(shapes, made, 1.0)
    state = adafactor.init(params, **KNOBS)
    for _ in range(5):
        params, state, _ = adafactor.update(params, shapes_to(shapes, made, 0.5), state)
    other = adafactor.init(params, **KNOBS)
    put_together(carry(taken_apart(state), tmp_path), other)
    assert snapshots.of_state(other) == snapshots.of_state(state)


def shapes_to(shapes, made, value):
    """The tree of arrays of such shapes."""
    if isinstance(shapes, dict):
        return {key: shapes_to(each, made, value) for key, each in shapes.items()}
    return made(np.full(shapes, value, np.float32))
