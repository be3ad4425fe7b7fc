"""The optimizer of torch where processes train one model together, and in torch's distributed checkpoints."""

import copy
import os

import pytest

from adafactor import presets
from peers import require
from scripts import found_by
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
)

checkpoint = require("torch.distributed.checkpoint")
helpers = require("torch.distributed.checkpoint.state_dict")

# Two processes, each with half of every batch, and one with all of it. `found` has, for each way to train and
# each rank, the weights after ten steps, and those of a run that was saved and loaded after five; and how
# fuse_backward takes it that there are ranks.
SCRIPT = """
import datetime, os, sys, tempfile
os.environ["GLOO_SOCKET_IFNAME"] = "lo0" if sys.platform == "darwin" else "lo"
import torch, torch.distributed as dist
from torch.distributed.optim import ZeroRedundancyOptimizer as Zero
from torch.nn.parallel import DistributedDataParallel
from text_model import BATCHES, Adafactor, NextByte, train, weights

folder = tempfile.TemporaryDirectory()

class Single(torch.nn.Module):
    "One parameter, so that one of two ranks has none."
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.logits = torch.nn.Embedding(256, 256)

    def forward(self, batch):
        return torch.nn.functional.cross_entropy(self.logits(batch[:, -2]), batch[:, -1])

WAYS = {
    "copies": (NextByte, Adafactor, {}),
    "shards": (NextByte, Zero, {"optimizer_class": Adafactor}),
    "shards in buckets": (NextByte, Zero, {"optimizer_class": Adafactor, "parameters_as_bucket_view": True}),
    "a shard without parameters": (Single, Zero, {"optimizer_class": Adafactor}),
}

def path(name):
    return os.path.join(folder.name, name)

def ranked(rank, model_of, cls, arguments):
    def made():
        model = DistributedDataParallel(model_of())
        return model, cls(model.parameters(), lr=1e-2, **arguments)

    halves = [batch[4 * rank:][:4] for batch in BATCHES]
    model, optimizer = made()
    train(model, optimizer, halves[:5])
    if cls is Zero:
        optimizer.consolidate_state_dict(to=0)
    if rank == 0:
        torch.save((model.state_dict(), optimizer.state_dict()), path("checkpoint"))
    dist.barrier()
    train(model, optimizer, halves[5:])
    resumed, again = made()
    train(resumed, again, halves[:2])  # of which nothing may be left
    of_model, of_optimizer = torch.load(path("checkpoint"))
    resumed.load_state_dict(of_model)
    again.load_state_dict(of_optimizer)
    train(resumed, again, halves[5:])
    dist.barrier()  # nobody writes the next checkpoint while somebody reads this one
    return weights(model.module), weights(resumed.module)

def refusals(rank):
    words = []
    for wrap in (DistributedDataParallel, lambda model: model):
        model = wrap(NextByte())
        try:
            with Adafactor(model.parameters()).fuse_backward(model):
                model(BATCHES[0]).backward()
        except (RuntimeError, ValueError) as error:
            words.append(str(error))
    return words

def run(rank):
    store, patience = dist.FileStore(path("store"), 2), datetime.timedelta(seconds=60)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=2, timeout=patience)
    result = {way: ranked(rank, *what) for way, what in WAYS.items()} | {"refusals": refusals(rank)}
    torch.save(result, path(str(rank)))
    dist.destroy_process_group()

def furthest(one, other):
    return max(float((one[name] - other[name]).abs().max()) for name in one)

torch.multiprocessing.start_processes(run, nprocs=2, start_method="fork")
first, second = torch.load(path("0")), torch.load(path("1"))
found = {"refusals": [first.pop("refusals"), second.pop("refusals")]}
for way, (model_of, *_) in WAYS.items():
    model = model_of()
    train(model, Adafactor(model.parameters(), lr=1e-2))
    (straight, resumed), (elsewhere, _) = first[way], second[way]
    found[way] = {
        "between ranks": furthest(straight, elsewhere),
        "to one process": furthest(straight, weights(model)),
        "to the resumed run": furthest(straight, resumed),
        "from the start": furthest(straight, weights(model_of())),
    }
"""


@pytest.fixture(scope="module")
def found():
    if not hasattr(os, "fork") or not torch.distributed.is_gloo_available():
        pytest.skip("there is no fork here, or no gloo")
    return found_by(SCRIPT, OMP_NUM_THREADS="1")


@pytest.mark.parametrize("way", ["copies", "shards", "shards in buckets", "a shard without parameters"])
def test_two_processes_train_as_one_and_resume(way, found):
    # 1e-6 is a unit in the last place of a weight of 8: gradients of halves are sums in another order.
    assert found[way]["from the start"] > 1e-3
    assert found[way]["between ranks"] == 0
    assert found[way]["to one process"] <= 1e-6
    assert found[way]["to the resumed run"] <= 1e-6


def test_steps_in_the_backward_are_refused_before_ranks_part(found):
    for in_wrapper, in_hook in found["refusals"]:
        assert in_wrapper.startswith("fuse_backward: DistributedDataParallel steps each parameter before")
        assert in_hook.startswith("fuse_backward: 2 ranks, each of which would step with its own gradients")


# The helpers of torch.distributed.checkpoint, which name parameters by their paths in the model.


class WithUnused(NextByte):
    """With a parameter that never has a gradient."""

    def __init__(self):
        super().__init__()
        self.unused = torch.nn.Parameter(torch.ones(5, 3))


flattened = pytest.mark.parametrize("flattened", [False, True], ids=["nested", "flattened"])


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled:UserWarning")  # it is one process
@flattened
@pytest.mark.parametrize("named", [False, True], ids=["", "named"])
def test_a_distributed_checkpoint_resumes_to_the_bits_of_the_straight_run(named, flattened, tmp_path):
    options = helpers.StateDictOptions(flatten_optimizer_state_dict=flattened)

    def made():
        model = WithUnused()
        pairs = list(model.named_parameters())
        each = pairs if named else [parameter for _, parameter in pairs]
        return model, Adafactor([{"params": each[:3]}, {"params": each[3:], "lr": 0.1, "weight_decay": 0.1}])

    def parts(model, optimizer):
        dicts = helpers.get_state_dict(model, optimizer, options=options)
        return dict(zip(("model", "optimizer"), dicts, strict=True))

    straight, resumed = made(), made()
    train(*straight, BATCHES[:5])
    checkpoint.save(parts(*straight), checkpoint_id=tmp_path, no_dist=True)
    train(*straight, BATCHES[5:])
    assert sorted(counts(straight[1])) == [0, *[STEPS] * 7]
    for _ in range(2):  # the second time over what has been loaded itself
        into = parts(*resumed)
        checkpoint.load(into, checkpoint_id=tmp_path, no_dist=True)
        model, optimizer = into.values()
        helpers.set_state_dict(*resumed, model_state_dict=model, optim_state_dict=optimizer, options=options)
        train(*resumed, BATCHES[5:])
        assert_same(weights(resumed[0]), weights(straight[0]))
        assert_same(state_of(resumed[1]), state_of(straight[1]))


# Each with what moves a weight, or what is remembered of it, though its gradient is zero.
PRESETS = {
    "big_vision": {"lr": 0.01, "wd": 0.1},
    "keras": {"weight_decay": 0.1, "use_ema": True},
    "optax": {"learning_rate": 0.01, "momentum": 0.9, "weight_decay_rate": 0.1},
    "pytorch_optimizer": {"weight_decay": 0.1, "fixed_decay": True},
    "t5x": {"learning_rate": 0.01, "beta1": 0.9, "weight_decay_rate": 0.1},
    "timm": {"betas": (0.9, 0.999), "weight_decay": 0.1},
    "timm_big_vision": {"lr": 0.01, "weight_decay": 0.1, "unscaled_wd": True},
    "torch": {"weight_decay": 0.1},
    "transformers": {"beta1": 0.9, "weight_decay": 0.1},
}


@flattened
@pytest.mark.parametrize("preset", presets.__all__)
def test_the_helpers_of_torch_count_nothing_and_move_nothing_of_a_fresh_optimizer(preset, flattened):
    options = helpers.StateDictOptions(flatten_optimizer_state_dict=flattened)
    config = getattr(presets, preset)(**PRESETS[preset])

    def made():
        model = NextByte()
        return model, Adafactor(model.parameters(), config=config)

    untouched, saved, loaded = made(), made(), made()
    found = copy.deepcopy(helpers.get_optimizer_state_dict(*saved, options=options))
    helpers.set_optimizer_state_dict(*loaded, found, options=options)
    for model, optimizer in (saved, loaded):
        assert_same(weights(model), weights(untouched[0]))
        assert counts(optimizer) == [0] * 7
        assert optimizer.report is None
    for each in (untouched, saved, loaded):
        train(*each, BATCHES[:3])
    for model, optimizer in (saved, loaded):
        assert_same(weights(model), weights(untouched[0]))
        assert_same(state_of(optimizer), state_of(untouched[1]))


# What a rate may be that is no number in a group, and where torch puts a zero meanwhile.
RATES = {
    "a tensor": lambda: ({}, {"lr": torch.tensor(0.05)}),
    "a tensor beside a config": lambda: ({}, {"lr": torch.tensor(0.05), "config": presets.timm()}),
    "that of a config": lambda: ({}, {"lr": None, "config": presets.transformers()}),
    "none in a group": lambda: ({"lr": None}, {"lr": None, "config": presets.transformers(weight_decay=0.1)}),
    "none in a group, a tensor": lambda: ({"lr": None}, {"lr": torch.tensor(0.05), "weight_decay": 0.1}),
}


@flattened
@pytest.mark.parametrize("rate", RATES)
def test_the_helpers_of_torch_leave_a_rate_of_any_kind_and_the_weights(rate, flattened):
    options = helpers.StateDictOptions(flatten_optimizer_state_dict=flattened)

    def made():
        model, (group, arguments) = NextByte(), RATES[rate]()
        first, *others = model.parameters()
        optimizer = Adafactor([{"params": [first], **group}, {"params": others}], **arguments)
        return model, optimizer

    def rates(optimizer):
        return [group["lr"] for group in optimizer.param_groups]

    untouched, saved, loaded = made(), made(), made()
    before = rates(saved[1])
    found = copy.deepcopy(helpers.get_optimizer_state_dict(*saved, options=options))
    assert all(a is b for a, b in zip(rates(saved[1]), before, strict=True))
    helpers.set_optimizer_state_dict(*loaded, found, options=options)
    for model, optimizer in (saved, loaded):
        assert_same(weights(model), weights(untouched[0]))
        assert counts(optimizer) == [0] * 7
        assert optimizer.report is None
        assert rates(optimizer) == rates(untouched[1])
        assert list(map(type, rates(optimizer))) == list(map(type, rates(untouched[1])))
    for each in (untouched, saved, loaded):
        train(*each, BATCHES[:3])
    assert untouched[1].report.learning_rate > 0
    for model, optimizer in (saved, loaded):
        assert_same(weights(model), weights(untouched[0]))
        assert_same(state_of(optimizer), state_of(untouched[1]))
