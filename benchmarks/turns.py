"""A process that holds one build of the package and steps when it is told to: `Stepper` starts it.

Two builds of a package cannot live in one process under one name, so each has its own, with equal arrays, and
blocks on a pipe while the other steps. Nothing here imports the package before it is known which.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.timer import lower_quartile

ROOT = Path(__file__).resolve().parents[1]
LEAST_CALLS = 5
PAUSE = 0.005  # seconds, many times as long as it takes to find out what a process has used


class StepperError(RuntimeError):
    """A process ended without an answer; the message has its name and the last line that it said."""


class Stepper:
    """One build on one workload, in a process of its own, idle except in `turn`."""

    def __init__(self, said: str, job: dict[str, Any]) -> None:
        self._said = said
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 - lives as long as the process
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.turns", json.dumps(job)],
            cwd=ROOT,
            env=os.environ | {"OMP_NUM_THREADS": str(job["threads"]), "CUDA_VISIBLE_DEVICES": ""},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )

    def __enter__(self) -> "Stepper":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()
        self._errors.close()

    def _answer(self) -> Any:
        line = self._process.stdout.readline()
        if line:
            return json.loads(line)
        code = self._process.wait()
        self._errors.seek(0)
        said = self._errors.read().strip().splitlines() or [""]
        raise StepperError(f"{self._said}: exit code {code}: {said[-1]}")

    def ready(self) -> dict[str, Any]:
        """What the build says of itself, once the arrays are there and a step was made.

        Raises:
            StepperError: it broke down, as `turn` may, too.
        """
        return self._answer()

    def times(self, seconds: float) -> list[float]:
        """The seconds of calls that go on for so long, after one that is not timed."""
        try:
            self._process.stdin.write(f"{seconds}\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # it is gone, and its last words say why
        return self._answer()

    def turn(self, seconds: float) -> float:
        """Their lower quartile."""
        return lower_quartile(self.times(seconds))


def import_build(folder: Path) -> Any:
    """The package in this folder, and nothing else that lies beside it, such as another NumPy."""
    sys.path.insert(0, str(folder))
    try:
        import adafactor
    finally:
        sys.path.remove(str(folder))
    for module in (adafactor, sys.modules["adafactor._core"]):
        if not Path(module.__file__).resolve().is_relative_to(folder.resolve()):
            raise ImportError(f"{module.__file__} stands before the package in {folder}")
    return adafactor


def make_step(job: dict[str, Any]) -> tuple[Callable[[], object], int]:
    """A step that was made once already, and how many calls of the library it has."""
    from benchmarks import trees
    from benchmarks.contestants import CONTESTANTS, TIMED_LEARNING_RATE

    shapes = [tuple(shape) for shape in job["shapes"]]
    params, grads = trees.draw(shapes, job["params"], job["grads"])
    contestant = CONTESTANTS[job["contestant"]]
    step = contestant.make(params, grads, learning_rate=TIMED_LEARNING_RATE).step
    step()
    return step, contestant.calls


def take_turn(step: Callable[[], object], seconds: float, before: Callable[[], object]) -> list[float]:
    """The seconds of calls; `before` is called before each, and is not timed."""
    step()  # brings back what the other process pushed out of the caches
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < LEAST_CALLS or time.perf_counter() < end:
        before()
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    return times


def use_torch(threads: int) -> Callable[[], object]:
    """An operation of torch on all cores, whose threads still look out for work when it returns."""
    import torch

    torch.set_num_threads(threads)
    numbers = torch.zeros(1 << 20)
    return lambda: numbers.add_(1)


def come_to_rest() -> None:
    """Wait until no thread of this process spins any more.

    OpenMP's threads look out for more work for some milliseconds after a step, which would be taken from the
    other process. A policy that lets them sleep at once would do, too, but few users have that, and it makes
    another step of the one that is to be measured.
    """
    for _ in range(400):
        used = time.process_time()
        time.sleep(PAUSE)
        if time.process_time() - used < 0.2 * PAUSE:
            return
    raise RuntimeError("threads still spin seconds after a step: unset OMP_WAIT_POLICY and GOMP_SPINCOUNT")


def main() -> None:
    # Whatever a library prints goes to stderr, so that the pipe has answers alone.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    job = json.loads(sys.argv[1])
    adafactor = import_build(Path(job["folder"]))
    adafactor.set_num_threads(job["threads"])
    step, calls_of_step = make_step(job)
    before = use_torch(job["threads"]) if job.get("behind_torch") else lambda: None
    come_to_rest()
    print(json.dumps(adafactor.build_info()), file=answers)
    for line in sys.stdin:
        seconds = [each / calls_of_step for each in take_turn(step, float(line), before)]
        come_to_rest()
        print(json.dumps(seconds), file=answers)


if __name__ == "__main__":
    main()
