"""Steps inside the backward: `step_param` and `fuse_backward`."""

import copy
import gc
import io
import warnings
import weakref

import pytest

import peers
from adafactor import presets

torch = peers.require("torch")


class Block(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = torch.nn.LayerNorm(16)
        self.attention = torch.nn.MultiheadAttention(16, 2, batch_first=True)
        self.up, self.down = torch.nn.Linear(16, 64), torch.nn.Linear(64, 16)

    def forward(self, x):
        y = self.norm(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        return x + self.down(torch.nn.functional.gelu(self.up(x)))


class Transformer(torch.nn.Module):
    """A small one, whose embedding is the matrix of its output as well."""

    def __init__(self, checkpoint=None):
        super().__init__()
        self.embedding = torch.nn.Embedding(40, 16)
        self.blocks = torch.nn.ModuleList(Block() for _ in range(2))
        self.checkpoint = checkpoint  # whether it is reentrant; None: nothing is computed twice

    def forward(self, tokens):
        x = self.embedding(tokens)
        for block in self.blocks:
            x = block(x)
        head = lambda x: x @ self.embedding.weight.T  # noqa: E731
        if self.checkpoint is None:
            return head(x)
        return torch.utils.checkpoint.checkpoint(head, x, use_reentrant=self.checkpoint)


def make(checkpoint=None):
    torch.manual_seed(0)
    return Transformer(checkpoint)


def losses_of(model, steps, after):
    torch.manual_seed(1)
    losses = []
    for _ in range(steps):
        tokens = torch.randint(40, (3, 9))
        loss = torch.nn.functional.cross_entropy(model(tokens).flatten(0, 1), tokens.roll(-1, 1).flatten())
        loss.backward()
        after()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("checkpoint", [None, False], ids=["plain", "checkpointed"])
def test_the_bits_are_those_of_step(checkpoint, optimizers):
    one, other = make(checkpoint), make(checkpoint)
    fused, whole = (optimizers.Adafactor(model.parameters(), lr=0.05) for model in (one, other))
    with fused.fuse_backward(one):
        first = losses_of(one, 6, fused.step)
    assert all(parameter.grad is None for parameter in one.parameters())

    def step():
        whole.step()
        whole.zero_grad()

    assert first == losses_of(other, 6, step)
    for a, b in zip(one.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)
        assert all(torch.equal(value, whole.state[b][key]) for key, value in fused.state[a].items())


def test_gradients_stand_in_memory_one_at_a_time(optimizers):
    model = make()
    optimizer = optimizers.Adafactor(model.parameters(), lr=0.05)
    alive, peak = set(), 0

    def note(parameter):
        nonlocal peak
        number, size = id(parameter.grad), parameter.grad.numel() * parameter.grad.element_size()
        alive.add((number, size))
        weakref.finalize(parameter.grad, alive.discard, (number, size))
        peak = max(peak, sum(size for _, size in alive))

    for parameter in model.parameters():
        parameter.register_post_accumulate_grad_hook(note)
    with optimizer.fuse_backward(model):
        losses_of(model, 2, gc.collect)
    assert peak == max(p.numel() * p.element_size() for p in model.parameters())
    assert not alive


def test_removed_it_leaves_the_gradients_alone(optimizers):
    model = make()
    optimizer = optimizers.Adafactor(model.parameters())
    fused = optimizer.fuse_backward(model)
    fused.remove()
    losses_of(model, 1, lambda: None)
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert not optimizer.state


def test_gradients_add_up_inside_of_accumulating(optimizers):
    one, other = make(), make()
    fused, whole = (optimizers.Adafactor(model.parameters(), lr=0.05) for model in (one, other))
    handle = fused.fuse_backward(one)
    torch.manual_seed(2)
    batches = [torch.randint(40, (2, 5)) for _ in range(3)]
    for number, tokens in enumerate(batches):
        whole_loss, loss = (model(tokens).square().mean() for model in (other, one))
        whole_loss.backward()
        if number < 2:
            with handle.accumulating():
                loss.backward()
        else:
            loss.backward()
    whole.step()
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
    assert {float(entry["step"]) for entry in fused.state.values()} == {1}


def test_only_the_parameters_of_the_optimizer_are_stepped(optimizers):
    model = make()
    optimizer = optimizers.Adafactor(model.blocks[0].parameters(), lr=0.05)
    with optimizer.fuse_backward(model):
        losses_of(model, 1, lambda: None)
    assert model.embedding.weight.grad is not None
    assert model.blocks[0].up.weight.grad is None
    with pytest.raises(ValueError, match="none of its parameters is in a group"):
        optimizer.fuse_backward(torch.nn.Linear(2, 2))
    with pytest.raises(ValueError, match="in no group of the optimizer"):
        optimizer.step_param(model.embedding.weight)


def test_a_second_gradient_before_the_next_forward_is_an_error(optimizers):
    model = make(checkpoint=True)
    optimizer = optimizers.Adafactor(model.parameters(), lr=0.05)
    with (
        optimizer.fuse_backward(model),
        pytest.raises(RuntimeError, match=r"embedding.weight has a gradient for the second time"),
    ):
        losses_of(model, 1, lambda: None)


def test_a_model_that_is_checkpointed_whole_and_twice_is_not_stepped_twice(optimizers):
    model = torch.nn.Linear(4, 4)
    optimizer = optimizers.Adafactor(model.parameters(), lr=0.05)
    x = torch.ones(2, 4, requires_grad=True)
    once = lambda x: torch.utils.checkpoint.checkpoint(model, x, use_reentrant=True)  # noqa: E731
    with optimizer.fuse_backward(model), pytest.raises(RuntimeError, match="for the second time"):
        (once(x) + once(2 * x)).sum().backward()
    assert {float(entry["step"]) for entry in optimizer.state.values()} == {1}


@pytest.mark.parametrize("way", ["deepcopy", "torch.save"])
def test_a_copy_of_a_model_has_no_optimizer(way, optimizers):
    model = make()
    optimizer = optimizers.Adafactor(model.parameters(), lr=0.05)
    optimizer.fuse_backward(model)
    losses_of(model, 1, lambda: None)
    if way == "deepcopy":
        copied = copy.deepcopy(model)
    else:
        file = io.BytesIO()
        torch.save(model, file)
        file.seek(0)
        copied = torch.load(file, weights_only=False)
    before = [parameter.detach().clone() for parameter in copied.parameters()]
    losses_of(copied, 1, lambda: None)
    assert all(parameter.grad is not None for parameter in copied.parameters())
    assert all(torch.equal(a, b) for a, b in zip(copied.parameters(), before, strict=True))


def test_parameters_that_have_left_are_let_go(optimizers):
    optimizer = optimizers.Adafactor([torch.nn.Parameter(torch.ones(2, 2))], lr=0.05)
    gone = []
    for _ in range(20):
        parameter = torch.nn.Parameter(torch.ones(2, 2))
        parameter.grad = torch.ones(2, 2)
        optimizer.param_groups[0]["params"][0] = parameter
        optimizer.step_param(parameter)
        optimizer.state.pop(parameter)
        gone.append(weakref.ref(parameter))
    del parameter
    gc.collect()
    assert sum(reference() is not None for reference in gone) <= 4


def test_who_counts_with_the_others_is_not_stepped_alone(optimizers):
    model = make()
    optimizer = optimizers.Adafactor(model.parameters(), config=presets.keras())
    with pytest.raises(ValueError, match=r"^count_updates: 'state' counts what the others do"):
        optimizer.fuse_backward(model)
    model.embedding.weight.grad = torch.ones(40, 16)
    with pytest.raises(ValueError, match=r"^count_updates: 'state' counts what the others do"):
        optimizer.step_param(model.embedding.weight)


def test_what_needs_all_gradients_is_refused(optimizers):
    model = make()
    optimizer = optimizers.Adafactor(model.parameters(), global_clipnorm=1.0)
    with pytest.raises(ValueError, match="global_clipnorm: the norm of all gradients"):
        optimizer.fuse_backward(model)
    weight = model.embedding.weight
    weight.grad = torch.ones_like(weight)
    before = weight.detach().clone()
    with pytest.raises(ValueError, match="global_clipnorm: the norm of all gradients"):
        optimizer.step_param(weight)
    assert torch.equal(weight, before)
    assert weight.grad is not None


def test_wrapped_models_are_refused(optimizers, one_rank):
    model = make()
    optimizer = optimizers.Adafactor(model.parameters())
    wrapped = torch.nn.parallel.DistributedDataParallel(model)
    with pytest.raises(ValueError, match="DistributedDataParallel steps each parameter before"):
        optimizer.fuse_backward(wrapped)
    sharded = make()
    one_rank.fsdp.fully_shard(sharded, mesh=one_rank.device_mesh.init_device_mesh("cpu", (1,)))
    with pytest.raises(ValueError, match="FSDPModule steps parts of parameters"):
        optimizers.Adafactor(sharded.parameters()).fuse_backward(sharded)


def test_several_ranks_are_refused_unless_they_are_meant(optimizers, monkeypatch):
    model = make()
    optimizer = optimizers.Adafactor(model.parameters(), lr=0.05)
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    with optimizer.fuse_backward(model), pytest.raises(RuntimeError, match="2 ranks, each of which"):
        losses_of(model, 1, lambda: None)
    assert not optimizer.state
    model.zero_grad()
    with optimizer.fuse_backward(model, per_rank=True):
        losses_of(model, 1, lambda: None)
    assert len(optimizer.state) == len(list(model.parameters()))


def test_a_gradient_that_is_refused_stays(optimizers):
    parameter = torch.nn.Parameter(torch.ones(3, 3))
    optimizer = optimizers.Adafactor([("weight", parameter)])
    parameter.grad = torch.full((3, 3), float("nan"))
    with pytest.raises(FloatingPointError, match="grads weight: 9 NaN"):
        optimizer.step_param(parameter)
    assert parameter.grad is not None
    assert torch.equal(parameter, torch.ones(3, 3))
    assert float(optimizer.state[parameter]["step"]) == 0


def test_clipnorm_clips_each_parameter_as_step_does(optimizers):
    one, other = make(), make()
    # A memory of none and a floor above it all leave the size of a gradient in the update.
    knobs = {"lr": 0.05, "beta2_decay": 0.0, "eps": (10.0, 1e-3), "clipnorm": 0.05}
    fused, whole = (optimizers.Adafactor(model.parameters(), **knobs) for model in (one, other))
    clipped = []

    def step():
        clipped.append(sum(float(parameter.grad.norm()) > 0.05 for parameter in other.parameters()))
        whole.step()
        whole.zero_grad()

    with fused.fuse_backward(one):
        first = losses_of(one, 4, lambda: None)
    assert first == losses_of(other, 4, step)
    assert min(clipped) > 3
    for a, b in zip(one.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)
        assert all(torch.equal(value, whole.state[b][key]) for key, value in fused.state[a].items())
    unclipped = make()
    free = optimizers.Adafactor(unclipped.parameters(), **knobs | {"clipnorm": None})
    with free.fuse_backward(unclipped):
        assert losses_of(unclipped, 4, lambda: None) != first


SCHEDULERS = {
    "LambdaLR": lambda o: torch.optim.lr_scheduler.LambdaLR(o, lambda epoch: 0.5**epoch),
    "StepLR": lambda o: torch.optim.lr_scheduler.StepLR(o, step_size=2, gamma=0.1),
}


@pytest.mark.parametrize("name", SCHEDULERS)
def test_a_scheduler_has_no_complaint_and_its_rate_counts(name, optimizers):
    one, other = make(), make()
    fused, whole = (optimizers.Adafactor(model.parameters(), lr=0.05) for model in (one, other))
    scheduler, twin = SCHEDULERS[name](fused), SCHEDULERS[name](whole)
    rates, expected = [], []

    def go_on():
        rates.append(fused.report.learning_rate)
        fused.step()
        scheduler.step()

    def step():
        whole.step()
        expected.append(whole.report.learning_rate)
        whole.zero_grad()
        twin.step()

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with fused.fuse_backward(one):
            first = losses_of(one, 5, go_on)
        assert first == losses_of(other, 5, step)
    assert rates == expected
    assert len(set(rates)) == (5 if name == "LambdaLR" else 3)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_without_a_step_a_scheduler_complains_as_torch_has_it(optimizers):
    model = make()
    optimizer = optimizers.Adafactor(model.parameters(), lr=0.05)
    scheduler = SCHEDULERS["LambdaLR"](optimizer)
    with optimizer.fuse_backward(model):
        losses_of(model, 1, lambda: None)
    with pytest.warns(UserWarning, match=r"lr_scheduler.step\(\)` before `optimizer.step\(\)`"):
        scheduler.step()


def test_hooks_of_a_step_run_around_step_alone_and_see_no_gradient(optimizers):
    model = make()
    optimizer = optimizers.Adafactor(model.parameters(), lr=0.05)
    seen = []

    def note(*_):
        kept = sum(parameter.grad is not None for parameter in model.parameters())
        seen.append((kept, {float(entry["step"]) for entry in optimizer.state.values()}))

    optimizer.register_step_pre_hook(note)
    optimizer.register_step_post_hook(note)
    with optimizer.fuse_backward(model):
        losses_of(model, 2, lambda: None)
        assert not seen
        losses_of(model, 1, optimizer.step)
    assert seen == [(0, {3.0})] * 2
