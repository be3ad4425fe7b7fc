"""What a step costs on a GPU, beside torch's optimizers and a plain copy: `python -m benchmarks.gpu`.

Contestants take turns on equal tensors in one process. A time is that of ten steps which the host queues
together, by CUDA's events, and the median over the turns; beside it the wall time of one step that is waited
for. A bar is a ratio that this project has set itself.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import command_line, results
from benchmarks.trees import WORKLOADS, Workload

QUEUED = 10
OURS, RAISES, ADAMW, FOREACH = "ours", "ours, raise", "AdamW, fused", "Adafactor, foreach"
BYTES = {
    "float32": 24,
    "bfloat16": 12,
}  # that a step of ours moves for each element: p and g twice, and p again
RATE = 1e-3


def billion() -> list[tuple[int, ...]]:
    """A decoder of a billion parameters."""
    layer = [*4 * [(2048, 2048)], *2 * [(5632, 2048)], (2048, 5632), *2 * [(2048,)]]
    return [(32000, 2048), *17 * layer, (2048,), (32000, 2048)]


class Case(NamedTuple):
    """A workload and what is asked of it.

    Attributes:
        workload: the tree.
        dtype: of parameters and gradients.
        of_copy: the share of the copy's bandwidth that a step has to reach; None: nothing is asked.
        of_adamw: how long it may take, beside AdamW; None: nothing is asked.
        of_foreach: how many times as long torch's own Adafactor has to take; None: nothing is asked.
    """

    workload: Workload
    dtype: str
    of_copy: float | None = None
    of_adamw: float | None = 1.0
    of_foreach: float | None = None


CASES = [
    Case(WORKLOADS["t5-small"], "float32", 0.85, 0.9, 10),
    Case(WORKLOADS["t5-small"], "bfloat16", 0.85, 0.9, 10),
    Case(WORKLOADS["4096x4096"], "float32", 0.85),
    Case(WORKLOADS["4096x4096"], "bfloat16", 0.85),
    Case(WORKLOADS["1024x1024"], "float32", None, 1.2),
    Case(WORKLOADS["small-leaves"], "float32"),
    Case(Workload("1 B decoder", billion()), "bfloat16"),
    Case(WORKLOADS["kernels-first"], "float32", None, None),
]


def bars(case: Case, row: results.Result) -> list[tuple[str, float, str, float, bool]]:
    """What a case asks for: what it is, what was found, the relation, the bar, and whether it was held."""
    asked = [
        ("share of the copy", row["share_of_copy"], ">=", case.of_copy),
        ("time / AdamW's", row["milliseconds"] / row["peers"][ADAMW]["milliseconds"], "<=", case.of_adamw),
        (
            "torch's Adafactor / it",
            row["peers"][FOREACH]["milliseconds"] / row["milliseconds"],
            ">=",
            case.of_foreach,
        ),
    ]
    return [
        (what, found, relation, bar, found >= bar if relation == ">=" else found <= bar)
        for what, found, relation, bar in asked
        if bar is not None
    ]


def table(result: results.Result) -> str:
    """What was found, a paragraph for each case."""
    lines = [
        f"{result['gpu']}, torch {result['torch']}, CUDA {result['cuda']['toolkit']}; medians of turns",
        f"copy: {result['copy_gigabytes_per_second']:.0f} GB/s, read and written",
    ]
    for row in result["rows"]:
        count = row["elements"] / 1e6
        lines += ["", f"{row['title']}, {row['dtype']}: {row['leaves']} leaves, {count:.1f} M elements"]
        lines.append(f"  {'':24}{'queued ms':>11}{'waited ms':>11}{'ours/it':>9}{'of copy':>9}")
        share = f"{row['share_of_copy']:9.2f}"
        lines.append(f"  {OURS:24}{row['milliseconds']:11.4f}{row['waited_milliseconds']:11.4f}{'':9}{share}")
        for name, peer in row["peers"].items():
            ratio = row["milliseconds"] / peer["milliseconds"]
            lines.append(
                f"  {name:24}{peer['milliseconds']:11.4f}{peer['waited_milliseconds']:11.4f}{ratio:9.3f}"
            )
        for bar in row["bars"]:
            said = "held" if bar["held"] else "MISSED"
            lines.append(f"  {bar['what']}: {bar['found']:.3f}, {bar['relation']} {bar['bar']}: {said}")
    if result["left_out"]:
        lines += ["", f"left out, for want of time: {'; '.join(result['left_out'])}"]
    return "\n".join(lines)


def tensors(shapes: Sequence[tuple[int, ...]], dtype: str) -> list[Any]:
    """Parameters with gradients, the same numbers at each call."""
    import torch

    generator = torch.Generator("cuda").manual_seed(0)

    def normal(shape: tuple[int, ...], scale: float) -> Any:
        drawn = torch.randn(shape, device="cuda", generator=generator) * scale
        return drawn.to(getattr(torch, dtype))

    made = [torch.nn.Parameter(normal(shape, 0.05)) for shape in shapes]
    for parameter in made:
        parameter.grad = normal(tuple(parameter.shape), 0.01)
    return made


def contestants() -> dict[str, Callable[[list[Any]], Any]]:
    """What makes the optimizer of each, of parameters."""
    import torch

    import adafactor.torch

    return {
        OURS: lambda params: adafactor.torch.Adafactor(params, lr=RATE, on_nonfinite="skip"),
        RAISES: lambda params: adafactor.torch.Adafactor(params, lr=RATE),
        ADAMW: lambda params: torch.optim.AdamW(params, lr=RATE, fused=True),
        FOREACH: lambda params: torch.optim.Adafactor(params, lr=RATE, foreach=True),
    }


def queued(step: Callable[[], object]) -> float:
    """Milliseconds of one of several steps that the host queues together."""
    import torch

    first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    first.record()
    for _ in range(QUEUED):
        step()
    last.record()
    last.synchronize()
    return first.elapsed_time(last) / QUEUED


def waited(step: Callable[[], object]) -> float:
    """Milliseconds of the host's clock until one step is done."""
    import torch

    torch.cuda.synchronize()
    start = time.perf_counter()
    step()
    torch.cuda.synchronize()
    return 1e3 * (time.perf_counter() - start)


def copy_bandwidth(turns: int) -> float:
    """Gigabytes a second, read and written, of a copy of 2 GB."""
    import torch

    source = torch.empty(1 << 29, device="cuda")
    target = torch.empty_like(source)
    target.copy_(source)
    milliseconds = statistics.median(queued(lambda: target.copy_(source)) for _ in range(turns))
    return 2 * source.nbytes / milliseconds / 1e6


def measure(case: Case, turns: int, bandwidth: float) -> results.Result:
    """One case: every contestant on tensors of its own."""
    import torch

    steps = {}
    for name, make in contestants().items():
        optimizer = make(tensors(case.workload.shapes, case.dtype))
        optimizer.step()
        steps[name] = optimizer.step
    times: dict[str, list[float]] = {name: [] for name in steps}
    waits: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(turns):
        for name, step in steps.items():
            times[name].append(queued(step))
            waits[name].append(waited(step))
    found = {
        name: {
            "milliseconds": statistics.median(times[name]),
            "waited_milliseconds": statistics.median(waits[name]),
        }
        for name in steps
    }
    del steps
    torch.cuda.empty_cache()
    floor = BYTES[case.dtype] * case.workload.elements / bandwidth / 1e6
    row = {
        "title": case.workload.title,
        "dtype": case.dtype,
        "leaves": len(case.workload.shapes),
        "elements": case.workload.elements,
        **found[OURS],
        "share_of_copy": floor / found[OURS]["milliseconds"],
        "peers": {name: each for name, each in found.items() if name != OURS},
    }
    names = ("what", "found", "relation", "bar", "held")
    row["bars"] = [dict(zip(names, bar, strict=True)) for bar in bars(case, row)]
    return row


def cuda_of_this_build() -> Any:
    """What the package says of CUDA."""
    import adafactor

    return adafactor.build_info()["cuda"]


def gpu_and_torch() -> tuple[str, str]:
    """What is measured, and beside what."""
    import torch

    return torch.cuda.get_device_name(), torch.__version__


def default_path(result: results.Result) -> Path:
    """Where the result goes unless it is said: a file for each kind of GPU."""
    gpu = "-".join("".join(c if c.isalnum() else " " for c in result["gpu"].lower()).split())
    return results.FOLDER / f"gpu-{gpu}.json"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = command_line.parser("gpu", __doc__ or "")
    parser.add_argument("--turns", type=command_line.positive, default=9, help="of each (default: 9)")
    parser.add_argument(
        "--seconds",
        type=command_line.duration,
        default=float("inf"),
        help="after which no case is begun (default: all are)",
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FILE.json",
        help="where the result goes (default: benchmarks/results/gpu-NAME.json)",
    )
    settings: argparse.Namespace = parser.parse_args(arguments)

    info = cuda_of_this_build()
    if not info or info["missing"]:
        parser.exit(1, f"no step can run on a GPU: {info['missing'] if info else 'this build has no CUDA'}\n")
    end = time.monotonic() + settings.seconds
    bandwidth = copy_bandwidth(settings.turns)
    result = results.begin("gpu", turns=settings.turns, queued=QUEUED)
    name, version = gpu_and_torch()
    result |= {
        "gpu": name,
        "torch": version,
        "cuda": info,
        "copy_gigabytes_per_second": bandwidth,
        "rows": [],
        "left_out": [],
    }
    path = settings.out or default_path(result)
    for case in CASES:
        if time.monotonic() > end:
            result["left_out"].append(f"{case.workload.title}, {case.dtype}")
        else:
            result["rows"].append(measure(case, settings.turns, bandwidth))
        results.save(result, path)  # so that there is something where the time is cut off
    print(table(result))
    print(f"written to {path}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
