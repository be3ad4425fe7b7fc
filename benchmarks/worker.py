"""One measurement in a process of its own, started by `run`: the times of some contestants, or one's memory.

A process for each, because Keras fixes its backend at import, because a peak of memory can only be told from
what one contestant alone allocates, and because a library that fails takes no other with it.
"""

import json
import os
import subprocess
import sys
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import adafactor
from benchmarks import memory, parts, timer, trees
from benchmarks.contestants import CONTESTANTS, TIMED_LEARNING_RATE
from benchmarks.trees import Workload

ROOT = Path(__file__).resolve().parents[1]


class WorkerError(RuntimeError):
    """A worker ended without an answer."""


def run(
    task: str,
    workload: Workload,
    names: Sequence[str],
    *,
    dtype: str = "float32",
    threads: int,
    seconds: float = 0,
) -> dict[str, Any]:
    """Start a worker, wait for it and return its answer.

    Raises:
        WorkerError: it broke down; the message has the last line that it said.
    """
    job = {"task": task, "shapes": workload.shapes, "names": names, "dtype": dtype}
    job |= {"threads": threads, "seconds": seconds}
    backend = next((CONTESTANTS[name].keras for name in names if CONTESTANTS[name].keras), "numpy")
    environment = os.environ | {
        "KERAS_BACKEND": backend,
        "OMP_NUM_THREADS": str(threads),
        "JAX_PLATFORMS": "cpu",
        "CUDA_VISIBLE_DEVICES": "",
    }
    command = [sys.executable, "-m", "benchmarks.worker", json.dumps(job)]
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        said = result.stderr.strip().splitlines() or [""]
        raise WorkerError(f"exit code {result.returncode}: {said[-1]}")
    return json.loads(result.stdout.splitlines()[-1])


def limit_threads(threads: int, names: Sequence[str]) -> None:
    """Give every library this many threads.

    JAX has no such knob: it makes one for each processor that the process may use, so it may use no more.
    """
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    adafactor.set_num_threads(threads)
    if any("torch" in CONTESTANTS[name].needs for name in names):
        import torch

        torch.set_num_threads(threads)


def checksums(arrays: Sequence[Any]) -> list[int]:
    return [zlib.crc32(array.view("uint8").reshape(-1)) for array in arrays]


def make_steps(job: dict[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """The steps of those that take the arrays, each made and called once, and the others' reasons."""
    params, grads = trees.draw([tuple(shape) for shape in job["shapes"]], job["dtype"])
    drawn = checksums([*params, *grads])
    steps, refused = {}, {}
    for name in job["names"]:
        try:
            step = CONTESTANTS[name].make(params, grads, learning_rate=TIMED_LEARNING_RATE).step
            step()
        except Exception as error:  # another library's, of whatever kind
            said = str(error).strip().splitlines() or [""]
            refused[name] = f"{type(error).__name__}: {said[0][:200]}"
        else:
            steps[name] = step
        if checksums([*params, *grads]) != drawn:
            raise RuntimeError(f"{name} wrote to the arrays that all share")
    return steps, refused


def times(job: dict[str, Any]) -> dict[str, Any]:
    """Median seconds of a step of each contestant."""
    steps, refused = make_steps(job)
    medians = timer.alternate(steps, seconds=job["seconds"])
    seconds = {name: taken / CONTESTANTS[name].calls for name, taken in medians.items()}
    return {"seconds": seconds, "refused": refused}


def parts_of_step(job: dict[str, Any]) -> dict[str, Any]:
    """Median seconds of a step of this project on tensors of torch, and of its parts."""
    params, grads = trees.draw([tuple(shape) for shape in job["shapes"]], job["dtype"])
    return {"seconds": timer.alternate(parts.of_step(params, grads), seconds=job["seconds"])}


def peak(job: dict[str, Any]) -> dict[str, Any]:
    """The peak of a step of the one contestant, once its first steps have allocated what stays."""
    steps, refused = make_steps(job)
    (name,) = job["names"]
    if name in refused:
        return {"peak_extra_bytes": None}
    steps[name]()
    return {"peak_extra_bytes": memory.peak_extra_bytes(steps[name])}


TASKS = {"times": times, "options": times, "parts": parts_of_step, "peak": peak}


def main() -> None:
    job = json.loads(sys.argv[1])
    limit_threads(job["threads"], job["names"])
    print()  # ends whatever a library began
    print(json.dumps(TASKS[job["task"]](job)))


if __name__ == "__main__":
    main()
