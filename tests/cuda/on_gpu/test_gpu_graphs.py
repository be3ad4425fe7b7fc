"""While a CUDA graph is captured on a GPU: what is refused, and that the graph stays whole."""

import gc
import threading

import pytest
import torch

import adafactor
import adafactor.torch


def test_a_captured_graph_is_refused():
    params = torch.ones(64, 64, device="cuda")
    state = adafactor.init(params)
    adafactor.step(params, params.clone(), state)
    gradient = params.clone()
    torch.cuda.synchronize()
    with (
        pytest.raises(RuntimeError, match="a CUDA graph is being captured"),
        torch.cuda.graph(torch.cuda.CUDAGraph()),
    ):
        adafactor.step(params, gradient, state)
    torch.cuda.synchronize()
    assert adafactor.step(params, gradient, state).updated


def test_a_graph_that_is_captured_meanwhile_stays_whole():
    """Whatever the package does on this thread while another piece of work is captured."""
    params = torch.ones(64, 64, device="cuda")
    gradient, total = params.clone(), torch.zeros((), device="cuda")
    states = [adafactor.init(params, on_nonfinite="skip") for _ in range(2)]
    reports = [adafactor.step(params, gradient, state) for state in states]
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        total += 1
        with pytest.raises(RuntimeError, match=r"^step: a CUDA graph is being captured"):
            adafactor.step(params, gradient, states[0])
        with pytest.raises(RuntimeError, match=r"^state: a CUDA graph is being captured"):
            adafactor.init(params)
        assert reports[0].updated
        lent = states[0].tensors()["", "row"]
        total += lent.sum()
        del states[1], reports[1]
        gc.collect()
        total += 1
    for _ in range(2):
        graph.replay()
    expected = 2 * (2 + lent.sum().item())
    assert total.item() == pytest.approx(expected)
    assert adafactor.step(params, gradient, states[0]).updated


def test_an_optimizer_makes_nothing_in_the_memory_of_a_graph():
    model = torch.nn.Linear(64, 32, device="cuda")
    optimizer = adafactor.torch.Adafactor(model.parameters(), lr=0.01, on_nonfinite="skip")
    model(torch.ones(8, 64, device="cuda")).sum().backward()
    torch.cuda.synchronize()
    total = torch.zeros((), device="cuda")
    for count in (0, 1):
        with torch.cuda.graph(torch.cuda.CUDAGraph()):
            total += 1
            with pytest.raises(RuntimeError, match=r"^step: a CUDA graph is being captured"):
                optimizer.step()
        assert len(optimizer.state) == 2 * count
        optimizer.step()  # of which nobody asks
    assert {entry["step"].item() for entry in optimizer.state_dict()["state"].values()} == {2.0}


def test_a_graph_of_another_thread_stays_whole():
    """A first step there takes memory, a look at its report waits, and the end of its state frees memory."""
    params = torch.ones(64, 64, device="cuda")
    gradient, total = params.clone(), torch.zeros((), device="cuda")
    adafactor.step(params, gradient, adafactor.init(params))  # has the kernels loaded
    found = []

    def train():
        state = adafactor.init(params, on_nonfinite="skip")
        found.append(adafactor.step(params, gradient, state).updated)

    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        total += 1
        thread = threading.Thread(target=train)
        thread.start()
        thread.join()
        gc.collect()
        total += 1
    graph.replay()
    assert total.item() == 2
    assert found == [True]
