"""Streams, torch's optimizer, scalers and memory on a GPU."""

import copy
import gc

import pytest
import torch

import adafactor
import adafactor.torch


class Transformer(torch.nn.Module):
    """A small one, with an embedding, convolutions, and rows of every kind."""

    def __init__(self):
        super().__init__()
        self.embedding = torch.nn.Embedding(512, 64)
        self.convolution = torch.nn.Conv1d(64, 64, 3, padding=1)
        layer = torch.nn.TransformerEncoderLayer(64, 4, 256, dropout=0.0, batch_first=True)
        self.layers = torch.nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = torch.nn.Linear(64, 512)

    def forward(self, tokens):
        hidden = self.embedding(tokens)
        hidden = hidden + self.convolution(hidden.transpose(1, 2)).transpose(1, 2)
        return self.head(self.layers(hidden))


def loss_of(model, device="cuda"):
    tokens = torch.randint(0, 512, (8, 32), device=device)
    return torch.nn.functional.cross_entropy(model(tokens).flatten(0, 1), tokens.flatten())


@pytest.mark.parametrize("on_nonfinite", ["raise", "skip"])
def test_twenty_steps_of_a_transformer_have_the_bits_of_a_cpu(on_nonfinite):
    model = Transformer().cuda()
    twin = copy.deepcopy(model).cpu()
    optimizers = [
        adafactor.torch.Adafactor(each.parameters(), lr=0.01, clipnorm=1.0, on_nonfinite=on_nonfinite)
        for each in (model, twin)
    ]
    for _ in range(20):
        optimizers[0].zero_grad()
        loss_of(model).backward()
        for mine, theirs in zip(twin.parameters(), model.parameters(), strict=True):
            mine.grad = theirs.grad.cpu()
        for optimizer in optimizers:
            optimizer.step()
    for mine, theirs in zip(twin.parameters(), model.parameters(), strict=True):
        assert torch.equal(mine, theirs.cpu())
    dicts = [optimizer.state_dict()["state"] for optimizer in optimizers]
    for mine, theirs in zip(dicts[1].values(), dicts[0].values(), strict=True):
        assert all(torch.equal(mine[key], theirs[key].cpu()) for key in mine)
        assert theirs["step"].device.type == "cpu"


def test_a_step_is_on_the_current_stream():
    side = torch.cuda.Stream()
    params, expected = torch.ones(2048, 2048, device="cuda"), torch.ones(2048, 2048)
    state, of_cpu = adafactor.init(params, on_nonfinite="skip"), adafactor.init(expected)
    gradient = torch.zeros_like(params)
    for factor in range(1, 6):
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            torch.cuda._sleep(20_000_000)  # what makes the gradient takes its time
            gradient.fill_(0.1 * factor)
            adafactor.step(params, gradient, state)
            gradient.fill_(float("nan"))
        adafactor.step(expected, torch.full_like(expected, 0.1 * factor), of_cpu)
    torch.cuda.synchronize()
    assert torch.equal(params.cpu(), expected)
    assert state.iterations == 5


@pytest.mark.parametrize("hands_over", [False, True])
def test_a_scaler_skips_what_overflows(hands_over):
    model = Transformer().cuda()
    optimizer = adafactor.torch.Adafactor(model.parameters(), lr=0.01, on_nonfinite="skip")
    optimizer._step_supports_amp_scaling = hands_over
    scaler = torch.amp.GradScaler("cuda", init_scale=2.0**24, growth_interval=2)
    scales = []
    for _ in range(12):
        optimizer.zero_grad()
        with torch.autocast("cuda", torch.float16):
            loss = loss_of(model)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        scales.append(scaler.get_scale())
    assert all(torch.isfinite(parameter).all() for parameter in model.parameters())
    assert min(scales) < 2.0**24
    overflowed = [after < before for before, after in zip([2.0**24, *scales], scales, strict=False)]
    # A scaler that looks itself does not call the optimizer then.
    assert optimizer.report.skipped == (hands_over and overflowed[-1])
    steps = {entry["step"].item() for entry in optimizer.state_dict()["state"].values()}
    assert steps == {12.0 - sum(overflowed)}


class Weighed(torch.nn.Module):
    """A model whose gradients are what it is called with, and so the same in each run."""

    def __init__(self):
        super().__init__()
        shapes = [(512, 64), (64,), (64, 64, 3), (3,), ()]
        self.weights = torch.nn.ParameterList(torch.randn(shape) for shape in shapes)

    def forward(self, given):
        return sum((weight * each).sum() for weight, each in zip(self.weights, given, strict=True))


def test_each_gradient_is_stepped_in_the_backward():
    model, twin = Weighed().cuda(), Weighed().cuda()
    twin.load_state_dict(model.state_dict())
    fused, plain = (adafactor.torch.Adafactor(each.parameters(), lr=0.01) for each in (model, twin))
    fused.fuse_backward(model)
    for _ in range(3):
        given = [torch.randn_like(weight) for weight in model.weights]
        for each, optimizer in ((model, fused), (twin, plain)):
            optimizer.zero_grad()
            each(given).backward()
            optimizer.step()
    for mine, theirs in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_a_thousand_steps_leave_nothing_behind():
    model = Transformer().cuda()
    optimizer = adafactor.torch.Adafactor(model.parameters(), lr=0.01, on_nonfinite="skip")
    loss_of(model).backward()

    def taken():
        torch.cuda.synchronize()
        gc.collect()
        return torch.cuda.memory_allocated(), torch.cuda.mem_get_info()[0]

    for _ in range(10):
        optimizer.step()
    before = taken()
    for _ in range(1000):
        optimizer.step()
    assert taken() == before


def test_the_memory_of_a_state_is_that_of_torch():
    params, gradient = torch.ones(512, 700, device="cuda"), torch.ones(512, 700, device="cuda")
    before = torch.cuda.memory_allocated()
    state = adafactor.init(params)
    made = torch.cuda.memory_allocated()
    assert state.nbytes <= made - before < state.nbytes + 512  # torch's blocks are multiples of that
    adafactor.step(params, gradient, state)
    scratch = adafactor.scratch_nbytes(params)
    assert scratch <= torch.cuda.memory_allocated() - made < scratch + 512
    del state
    gc.collect()
    assert torch.cuda.memory_allocated() == before


def test_knobs_that_change_at_each_step_take_no_memory():
    model = Transformer().cuda()
    optimizer = adafactor.torch.Adafactor(model.parameters(), lr=0.01, on_nonfinite="skip")
    loss_of(model).backward()
    optimizer.step()
    before = torch.cuda.memory_stats()["allocation.all.allocated"]
    for step in range(20):
        for group in optimizer.param_groups:
            group["weight_decay"] = 0.01 / (1 + step)
        optimizer.step()
    assert torch.cuda.memory_stats()["allocation.all.allocated"] == before
