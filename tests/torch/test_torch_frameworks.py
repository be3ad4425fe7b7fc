"""The optimizer of torch in loops that others have written, and under torch's own schedulers and scaler.

A run that is interrupted and resumed has to be the straight one to the bit: whatever a framework moves, wraps
or saves of an optimizer, nothing of it may be lost.
"""

import copy

import pytest

from peers import require
from text_model import (
    BATCHES,
    STEPS,
    Adafactor,
    NextByte,
    assert_same,
    counts,
    state_of,
    torch,
    train,
    weights,
    windows,
)

HALF = STEPS // 2
LR = 1e-2

# Both compute in float32, with sums in other orders: a few units in the last place in each step.
CLOSE = {"rtol": 1e-5, "atol": 1e-7}


def warmed_up(optimizer):
    """A scheduler that begins with a rate of 0."""
    return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(step / 3, (STEPS - step) / STEPS))


# Accelerate, and the Trainer of transformers, which stands on it.


@pytest.fixture
def accelerate():
    """Accelerate, which forgets after the test what it keeps for the whole process."""
    module, states = require("accelerate"), require("accelerate.state")
    yield module
    states.GradientState._reset_state()
    states.AcceleratorState._reset_state(reset_partial_state=True)


def test_accelerate_resumes_to_the_bits_of_the_straight_run(accelerate, tmp_path):
    def prepared():
        accelerator, model = accelerate.Accelerator(cpu=True, gradient_accumulation_steps=2), NextByte()
        optimizer = Adafactor(model.parameters(), lr=LR)
        return accelerator, *accelerator.prepare(model, optimizer, warmed_up(optimizer))

    def accumulate(accelerator, model, optimizer, scheduler, batches):
        for batch in batches:
            with accelerator.accumulate(model):
                accelerator.backward(model(batch))
                if accelerator.sync_gradients:
                    accelerator.clip_grad_norm_(model.parameters(), 0.5)
                optimizer.step()
                scheduler.step()
                optimizer.zero_grad()
                assert not optimizer.step_was_skipped

    straight = prepared()
    accumulate(*straight, BATCHES[:6])
    straight[0].save_state(tmp_path)
    accumulate(*straight, BATCHES[6:])
    resumed = prepared()
    resumed[0].load_state(tmp_path)
    accumulate(*resumed, BATCHES[6:])
    for _, model, optimizer, scheduler in (straight, resumed):
        assert_same(weights(model), weights(straight[1]))
        assert_same(state_of(optimizer), state_of(straight[2]))
        assert set(counts(optimizer)) == {HALF}
        assert scheduler.get_last_lr() == [LR * HALF / STEPS]


def test_a_state_dict_from_before_the_first_step_loads():
    """Accelerate loads an optimizer's own state dict into it at once."""
    model = NextByte()
    optimizer = Adafactor(model.parameters(), lr=LR)
    saved = Adafactor(model.parameters(), lr=0.5, weight_decay=0.1).state_dict()
    train(model, optimizer)
    optimizer.load_state_dict(saved)
    assert state_of(optimizer) == {}
    assert [(group["lr"], group["weight_decay"]) for group in optimizer.param_groups] == [(0.5, 0.1)]
    wrong = copy.deepcopy(saved)
    wrong["param_groups"][0]["weight_decay"] = -1.0
    with pytest.raises(ValueError, match="weight_decay: -1, expected"):
        optimizer.load_state_dict(wrong)
    assert optimizer.state_dict() == saved


@pytest.fixture
def trainer(accelerate, tmp_path):
    """Makes a Trainer of a model with tied weights and dropout, with a checkpoint every fifth step."""
    transformers = require("transformers")

    def make(folder, made="by the trainer", steps=STEPS):
        torch.manual_seed(0)
        sizes = {"vocab_size": 256, "n_positions": 16, "n_embd": 8, "n_layer": 1, "n_head": 2}
        words = {"bos_token_id": None, "eos_token_id": None, "loss_type": "ForCausalLM"}
        model = transformers.GPT2LMHeadModel(transformers.GPT2Config(**sizes, **words))
        if made == "by the trainer":
            how = {"optimizer_cls_and_kwargs": (Adafactor, {"lr": LR})}
        else:
            optimizer = Adafactor(model.named_parameters(), lr=LR)
            how = {"optimizers": (optimizer, warmed_up(optimizer))}
        arguments = transformers.TrainingArguments(
            output_dir=str(tmp_path / folder),
            max_steps=steps,
            save_steps=HALF,
            per_device_train_batch_size=4,
            warmup_steps=3,
            weight_decay=0.1,
            logging_steps=1,
            use_cpu=True,
            report_to="none",
            disable_tqdm=True,
        )
        texts = windows(24, 16)  # an epoch has six steps
        dataset = [{"input_ids": text, "labels": text} for text in texts]
        return transformers.Trainer(model, arguments, train_dataset=dataset, **how)

    return make


@pytest.mark.parametrize("made", ["by the trainer", "by the user"])
def test_a_trainer_of_transformers_resumes_to_the_bits_of_the_straight_run(made, trainer, tmp_path):
    straight, resumed = trainer("straight", made), trainer("resumed", made)
    straight.train()
    resumed.train(resume_from_checkpoint=str(tmp_path / "straight" / f"checkpoint-{HALF}"))
    assert_same(weights(resumed.model), weights(straight.model))
    assert_same(state_of(resumed.optimizer), state_of(straight.optimizer))
    assert set(counts(straight.optimizer)) == {STEPS}
    decays = [group["weight_decay"] for group in straight.optimizer.param_groups]
    assert decays == ([0.1, 0.0] if made == "by the trainer" else [0.0])


def test_the_first_step_of_a_warm_up_counts_and_moves_nothing(trainer):
    trained = trainer("first", steps=1)
    before = weights(trained.model)
    trained.train()
    assert trained.state.log_history[0]["learning_rate"] == 0
    assert_same(weights(trained.model), before)
    assert set(counts(trained.optimizer)) == {1}


# Lightning, which uses what torch has deprecated.

of_lightning = pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")


@pytest.fixture
def fit():
    """Trains with Lightning, for epochs of five batches each; from a checkpoint where one is given."""
    lightning = require("lightning.pytorch")

    class Module(lightning.LightningModule):
        def __init__(self, cls):
            super().__init__()
            self.cls, self.model = cls, NextByte()

        def training_step(self, batch):
            return self.model(batch)

        def configure_optimizers(self):
            optimizer = self.cls(self.parameters(), lr=LR)
            scheduler = {"scheduler": warmed_up(optimizer), "interval": "step"}
            return {"optimizer": optimizer, "lr_scheduler": scheduler}

    def fit(cls, epochs=2, checkpoint=None, **arguments):
        module = Module(cls)
        less = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
        arguments |= dict.fromkeys(less, False)
        trainer = lightning.Trainer(accelerator="cpu", devices=1, max_epochs=epochs, **arguments)
        loader = torch.utils.data.DataLoader(windows(8 * HALF), batch_size=8)
        trainer.fit(module, loader, ckpt_path=checkpoint)
        return trainer, module.model

    return fit


# Where weights differ by a unit, they may be rounded to other numbers in bfloat16, whose units are 2**-8.
LIGHTNING = {
    "plain": ({}, CLOSE),
    "clipped": ({"gradient_clip_val": 0.5}, CLOSE),
    "accumulated": ({"accumulate_grad_batches": 2}, CLOSE),
    "bfloat16": ({"precision": "bf16-mixed"}, {"rtol": 0, "atol": LR * 2**-8}),
}


@of_lightning
@pytest.mark.parametrize(("arguments", "close"), LIGHTNING.values(), ids=LIGHTNING)
def test_lightning_trains_as_with_the_adafactor_of_torch(arguments, close, fit):
    found, expected = (fit(cls, **arguments)[1] for cls in (Adafactor, torch.optim.Adafactor))
    torch.testing.assert_close(weights(found), weights(expected), **close)


@of_lightning
def test_lightning_resumes_to_the_bits_of_the_straight_run(fit, tmp_path):
    half, _ = fit(Adafactor, epochs=1)
    half.save_checkpoint(tmp_path / "half.ckpt")
    resumed, model = fit(Adafactor, checkpoint=tmp_path / "half.ckpt")
    straight, expected = fit(Adafactor)
    assert_same(weights(model), weights(expected))
    assert_same(state_of(resumed.optimizers[0]), state_of(straight.optimizers[0]))
    assert set(counts(straight.optimizers[0])) == {STEPS}


# The schedulers and the scaler of torch.

SCHEDULERS = {
    "OneCycleLR": lambda optimizer: torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=[LR, 2 * LR], total_steps=STEPS, cycle_momentum=False
    ),
    "LambdaLR": warmed_up,
    "ReduceLROnPlateau": lambda optimizer: torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, factor=0.7, patience=0
    ),
}


def gradients_at_the_start():
    """Of the parameters, for each batch: in training one that is off by a rounding changes the next."""
    model = NextByte()
    return [torch.autograd.grad(model(batch), list(model.parameters())) for batch in BATCHES]


@pytest.mark.parametrize("kind", [float, torch.tensor], ids=["number", "tensor"])
@pytest.mark.parametrize("name", SCHEDULERS)
def test_a_scheduler_steps_as_with_the_adafactor_of_torch(name, kind):
    gradients = gradients_at_the_start()

    def scheduled(cls):
        model = NextByte()
        other = {"params": model.embedding.parameters(), "lr": kind(2 * LR)}
        optimizer = cls([{"params": model.out.parameters()}, other], lr=kind(LR))
        scheduler = SCHEDULERS[name](optimizer)
        rates = []
        for step, given in enumerate(gradients):
            for parameter, gradient in zip(model.parameters(), given, strict=True):
                parameter.grad = gradient.clone()
            optimizer.step()
            rates.append([float(group["lr"]) for group in optimizer.param_groups])
            # A plateau from the second step on.
            scheduler.step(*([max(2 - step, 1)] if name == "ReduceLROnPlateau" else []))
        return weights(model), rates

    (found, rates), (expected, their_rates) = scheduled(Adafactor), scheduled(torch.optim.Adafactor)
    assert rates == their_rates
    assert len({rate for rate, _ in rates}) >= STEPS - 2
    torch.testing.assert_close(found, expected, **CLOSE)


def test_a_cycle_of_momentum_is_refused_as_with_the_adafactor_of_torch():
    for cls in (Adafactor, torch.optim.Adafactor):
        optimizer = cls(NextByte().parameters())
        with pytest.raises(ValueError, match="optimizer must support momentum"):
            torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=STEPS)


def scaled(cls, clips, flag):
    """The weights and the state after training with a scaler, which skips the step of an infinite loss."""
    model = NextByte()
    optimizer = cls(model.parameters(), lr=LR)
    optimizer._step_supports_amp_scaling = flag
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    for step, batch in enumerate(BATCHES):
        optimizer.zero_grad()
        loss = model(batch) * (float("inf") if step == 3 else 1)
        scaler.scale(loss).backward()
        if clips:
            scaler.unscale_(optimizer)
            torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        before = copy.deepcopy((weights(model), state_of(optimizer)))
        scaler.step(optimizer)
        scaler.update()
        if step == 3:
            assert_same((weights(model), state_of(optimizer)), before)
    assert set(counts(optimizer)) == {STEPS - 1}
    return weights(model), state_of(optimizer)


@pytest.mark.parametrize("clips", [False, True], ids=["", "clipped"])
def test_a_scaler_skips_and_whoever_leaves_the_scale_to_the_optimizer_has_the_same_numbers(clips):
    found = scaled(Adafactor, clips, flag=False)
    assert_same(
        scaled(Adafactor, clips, flag=True), found
    )  # a scale is a power of two: dividing by it is exact
    torch.testing.assert_close(found, scaled(torch.optim.Adafactor, clips, flag=False), **CLOSE)
