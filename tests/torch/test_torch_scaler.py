"""A `GradScaler` is left to unscale, to check and to skip: frameworks would miss it where it was not."""

import copy
import pickle

import pytest

from peers import require
from text_model import BATCHES, Adafactor, NextByte, assert_same, counts, state_of, torch, train, weights

FLAG = "_step_supports_amp_scaling"
LR = 1e-2


def test_the_optimizer_never_says_that_it_unscales(optimizers):
    model = NextByte()
    optimizer = optimizers.Adafactor(model.parameters(), lr=LR, foreach=True)
    assert not hasattr(optimizer, FLAG)
    train(model, optimizer, BATCHES[:1])
    optimizer.load_state_dict(optimizer.state_dict())
    for each in (optimizer, copy.deepcopy(optimizer), pickle.loads(pickle.dumps(optimizer))):
        assert not hasattr(each, FLAG)
    assert hasattr(torch.optim.Adam(model.parameters(), fused=True), FLAG)


def scaled_step(scaler, model, optimizer, batch, factor=1.0):
    optimizer.zero_grad()
    scaler.scale(model(batch) * factor).backward()
    scaler.step(optimizer)
    scaler.update()


def test_a_scaler_that_finds_inf_does_not_call_the_step():
    model = NextByte()
    optimizer = Adafactor(model.parameters(), lr=LR)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    called = []
    optimizer.register_step_pre_hook(lambda *_: called.append(scaler.get_scale()))
    for factor in (1.0, float("inf"), 1.0):
        scaled_step(scaler, model, optimizer, BATCHES[0], factor)
    assert called == [2.0**10, 2.0**9]
    assert set(counts(optimizer)) == {2}


@pytest.fixture
def accelerated():
    """Makes Accelerate's wrapper of an optimizer and a scaler."""
    states = require("accelerate.state")
    require("accelerate").Accelerator(cpu=True)  # which makes the states
    yield require("accelerate.optimizer").AcceleratedOptimizer
    states.GradientState._reset_state()
    states.AcceleratorState._reset_state(reset_partial_state=True)


def test_accelerate_knows_which_steps_were_skipped(accelerated):
    model, twin = NextByte(), NextByte()
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    plain = Adafactor(twin.parameters(), lr=LR)
    optimizer = accelerated(Adafactor(model.parameters(), lr=LR), scaler=scaler)
    skipped = []
    for batch, factor in zip(BATCHES, (1.0, float("inf"), 1.0, float("nan"), 1.0), strict=False):
        optimizer.zero_grad()
        scaler.scale(model(batch) * factor).backward()
        optimizer.step()
        skipped.append(optimizer.step_was_skipped)
        if factor == 1:
            train(twin, plain, [batch])
    assert skipped == [False, True, False, True, False]
    assert_same(weights(model), weights(twin))  # a scale is a power of two: dividing by it is exact
    assert_same(state_of(optimizer), state_of(plain))


def test_lightning_clips_beside_a_scaler():
    precision = require("lightning.pytorch.plugins.precision")
    model, twin = NextByte(), NextByte()
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    plugin = precision.MixedPrecision("16-mixed", "cpu", scaler)
    optimizer, plain = (Adafactor(each.parameters(), lr=LR, beta2_decay=0.0) for each in (model, twin))
    for batch in BATCHES[:3]:
        optimizer.zero_grad()
        scaler.scale(model(batch)).backward()
        scaler.unscale_(optimizer)
        plugin.clip_gradients(optimizer, 0.5)
        scaler.step(optimizer)
        scaler.update()
        plain.zero_grad()
        twin(batch).backward()
        torch.nn.utils.clip_grad_norm_(twin.parameters(), 0.5)
        plain.step()
    assert_same(weights(model), weights(twin))
    fused = torch.optim.Adam(NextByte().parameters(), fused=True)
    with pytest.raises(RuntimeError, match="does not allow for gradient clipping"):
        plugin.clip_gradients(fused, 0.5)
