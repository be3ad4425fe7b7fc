"""What one step costs: `python -m benchmarks.step` prints a table and writes it as JSON.

Each tree of float32 NumPy arrays is stepped in place, in alternation with a read-read-write loop and, where
torch is installed, with torch's fused AdamW and its Adafactor on equal parameters and the same gradients.
"""

import argparse
import importlib
import importlib.util
import json
import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType

import numpy as np

import adafactor
from benchmarks import bandwidth, machine, timer, trees

RESULTS = Path(__file__).parent / "results"
OURS, LOOP, ADAMW, TORCH = "adafactor", "read-read-write", "torch AdamW(fused)", "torch Adafactor"
Shape = tuple[int, ...]
Contestants = dict[str, Callable[[], object]]
Row = dict[str, object]


def bytes_moved(shapes: Sequence[Shape], cache_bytes: int) -> int:
    """Bytes of parameters and gradients that one default step must move between memory and the caches.

    `moments` reads g of the whole tree (4 bytes an element), `rms` reads g and p (8), `apply` reads both and
    writes p (12). A leaf whose p and g fit in the cache is read once for the last two (12), and a tree that
    fits as a whole keeps g from `moments` as well.
    """
    sizes = [math.prod(shape) for shape in shapes]
    if 8 * sum(sizes) <= cache_bytes:
        return 12 * sum(sizes)
    return sum((16 if 8 * size <= cache_bytes else 24) * size for size in sizes)


def our_step(params: list[np.ndarray], grads: list[np.ndarray]) -> Callable[[], object]:
    state = adafactor.init(params)
    return lambda: adafactor.step(params, grads, state)


def torch_steps(torch: ModuleType, params: list[np.ndarray], grads: list[np.ndarray]) -> Contestants:
    """torch's optimizers, each on its own parameters, all on our gradients: no step writes to them."""

    def make(factory: type, **settings: object) -> Callable[[], object]:
        copies = [torch.nn.Parameter(torch.from_numpy(array.copy())) for array in params]
        for parameter, grad in zip(copies, grads, strict=True):
            parameter.grad = torch.from_numpy(grad)
        return factory(copies, **settings).step

    return {ADAMW: make(torch.optim.AdamW, fused=True), TORCH: make(torch.optim.Adafactor)}


def load_torch(threads: int) -> ModuleType | None:
    if importlib.util.find_spec("torch") is None:
        return None
    torch = importlib.import_module("torch")
    torch.set_num_threads(threads)
    return torch


def measure(shapes: Sequence[Shape], torch: ModuleType | None, options: argparse.Namespace) -> Row:
    """One row of the table: milliseconds of each contestant and what follows from them."""
    random = np.random.default_rng(0)
    params = [0.05 * random.standard_normal(shape, dtype=np.float32) for shape in shapes]
    grads = [0.01 * random.standard_normal(shape, dtype=np.float32) for shape in shapes]
    contestants: Contestants = {LOOP: bandwidth.ReadReadWrite(options.threads), OURS: our_step(params, grads)}
    if torch is not None:
        contestants |= torch_steps(torch, params, grads)
    seconds = timer.alternate(contestants, seconds=options.seconds)

    elements = sum(math.prod(shape) for shape in shapes)
    moved = bytes_moved(shapes, options.cache_mb << 20)
    floor = bandwidth.BYTES_PER_CALL / seconds.pop(LOOP) / 1e9
    reached = moved / seconds[OURS] / 1e9
    return {
        "elements": elements,
        "milliseconds": {name: 1e3 * taken for name, taken in seconds.items()},
        "nanoseconds_per_element": 1e9 * seconds[OURS] / elements,
        "bytes_per_element": moved / elements,
        "gigabytes_per_second": reached,
        "read_read_write_gigabytes_per_second": floor,
        "fraction_of_bandwidth": reached / floor,
        "ratio": {name: seconds[OURS] / taken for name, taken in seconds.items() if name != OURS},
    }


def print_row(tree: str, row: Row) -> None:
    times, ratios = row["milliseconds"], row["ratio"]
    cells = [
        f"{tree:22}{times[OURS]:9.3f}",
        f"{row['nanoseconds_per_element']:8.3f}{row['bytes_per_element']:7.1f}",
        f"{row['gigabytes_per_second']:8.1f}{row['read_read_write_gigabytes_per_second']:8.1f}",
        f"{row['fraction_of_bandwidth']:10.2f}",
        *(f"{times[name]:12.3f}{ratio:8.3f}" for name, ratio in ratios.items()),
    ]
    print("".join(cells), flush=True)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.step", description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2, help="of every contestant (default: 2)")
    parser.add_argument("--seconds", type=float, default=8.0, help="spent on each tree (default: 8)")
    parser.add_argument("--tree", action="append", choices=trees.TREES, help="only this one; repeatable")
    parser.add_argument("--no-torch", action="store_true", help="leave torch out where it is installed")
    parser.add_argument("--cache-mb", type=int, default=32, help="p and g up to this size stay in the cache")
    parser.add_argument("--out", type=Path, help="default: benchmarks/results/step-CPU-N-threads.json")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(arguments)
    adafactor.set_num_threads(options.threads)
    torch = None if options.no_torch else load_torch(options.threads)
    description = machine.describe()

    print(f"{description['cpu']}, {options.threads} threads; float32; medians of alternating runs")
    heading = f"{'tree':22}{'ms':>9}{'ns/el':>8}{'B/el':>7}{'GB/s':>8}{'loop':>8}{'fraction':>10}"
    print(heading + (f"{'AdamW ms':>12}{'ratio':>8}{'Adafactor':>12}{'ratio':>8}" if torch else ""))
    rows = {}
    for tree in options.tree or trees.TREES:
        rows[tree] = measure(trees.TREES[tree], torch, options)
        print_row(tree, rows[tree])

    cpu = re.sub(r"[^a-z0-9]+", "-", str(description["cpu"]).lower()).strip("-")
    out = options.out or RESULTS / f"step-{cpu}-{options.threads}-threads.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    result = {"machine": description, "threads": options.threads, "cache_mb": options.cache_mb, "trees": rows}
    out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(f"written to {out}")


if __name__ == "__main__":
    main()
