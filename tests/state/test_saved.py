"""What an earlier version has saved goes into this one, and the training goes on from there."""

import json
import pickle
import subprocess
import sys

import numpy as np
import pytest

import adafactor
import saved
import snapshots


def load(name):
    with np.load(saved.FOLDER / name) as file:
        return dict(file)


@pytest.mark.parametrize("name", saved.STATES)
def test_a_pickled_state_holds_what_it_held(name):
    params, state = pickle.loads((saved.FOLDER / f"{name}.pickle").read_bytes())
    held = load(f"{name}.npz")
    counters = [state.iterations, state.calls, *state.leaf_updates]
    assert held.pop("counters").tolist() == counters
    assert counters[1] == saved.CALLS
    arrays = {f"{kind} {path}": array for (path, kind), array in state.arrays().items()}
    assert {key: a.tobytes() for key, a in arrays.items()} == {key: a.tobytes() for key, a in held.items()}
    for knob, value in saved.STATES[name].items():
        assert getattr(state.config, knob) == value
    report = adafactor.step(params, saved.numbers(99), state)
    assert state.calls == saved.CALLS + 1
    assert report.updated
    assert all(np.isfinite(p).all() for p in params["dense"].values())


@pytest.mark.parametrize("name", saved.STATES)
def test_it_goes_on_as_one_that_is_put_together_from_its_arrays(name):
    params, state = pickle.loads((saved.FOLDER / f"{name}.pickle").read_bytes())
    overrides = saved.OVERRIDES if name == "average" else ()
    other = adafactor.init(params, overrides=overrides, **saved.STATES[name])
    held = load(f"{name}.npz")
    _iterations, calls, *updates = held.pop("counters").tolist()
    other.restore(calls, {tuple(key.split(" ", 1)[::-1]): array for key, array in held.items()}, updates)
    results = [adafactor.update(params, saved.numbers(99), each)[:2] for each in (state, other)]
    assert len({str(snapshots.of_state(after)) for _, after in results}) == 1
    assert len({str(snapshots.memory([p["dense/kernel"], p["number"]])) for p, _ in results}) == 1


def test_the_store_and_the_list_of_an_optimizer_go_in():
    config = json.loads((saved.FOLDER / "config.json").read_text())
    optimizers = []
    for fill in ("store", "list"):
        optimizer = adafactor.Adafactor.from_config(config)
        params = saved.numbers(0)
        optimizer.build(params)
        held = load(f"{fill}.npz")
        if fill == "store":
            optimizer.load_own_variables(held)
        else:
            optimizer.set_weights([held[f"arr_{i}"] for i in range(len(held))])
        assert optimizer._state.calls == saved.CALLS
        optimizer.apply(saved.numbers(99))
        optimizers.append([params["dense/kernel"].tobytes(), *(a.tobytes() for a in optimizer.variables)])
    assert optimizers[0] == optimizers[1]


SAVES = """
import sys
import numpy as np
import adafactor
{imports}
w = np.ones((3, 4), np.float32)
optimizer = adafactor.Adafactor(beta_1=0.9, momentum_dtype="bfloat16")
optimizer.apply([np.full((3, 4), 0.3, np.float32)], [w])
store = {{}}
optimizer.save_own_variables(store)
np.savez(sys.argv[1], **store)
"""


def test_a_momentum_in_bfloat16_is_stored_alike_whether_or_not_ml_dtypes_is_loaded(tmp_path):
    stores = []
    for imports in ("import ml_dtypes", "assert 'ml_dtypes' not in sys.modules"):
        path = tmp_path / f"{len(stores)}.npz"
        subprocess.run([sys.executable, "-c", SAVES.format(imports=imports), str(path)], check=True)
        with np.load(path) as file:
            stores.append({key: (a.dtype.str, a.tobytes()) for key, a in file.items()})
    assert stores[0] == stores[1]
    assert "<u2" in {dtype for dtype, _ in stores[0].values()}
