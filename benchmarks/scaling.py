"""What an element costs as a leaf grows: one float32 matrix of 1, 4, 16 ... 512 M elements.

The numbers of threads take turns on the same arrays. Sizes that the free memory does not hold are left out.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

import adafactor
from benchmarks import command_line, machine, pictures, results, timer
from benchmarks.progress import Progress
from benchmarks.rows import Entry

BYTES_PER_ELEMENT = 8 + 1  # p and g; the moments and everything else take less than the rest
UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def matrix(power: int) -> tuple[int, int]:
    """A matrix of 2^power elements, square or twice as wide as high."""
    return 1 << power // 2, 1 << (power + 1) // 2


def sizes(limit: int) -> list[int]:
    """Powers of two for the sizes up to a limit: each second one, and the last."""
    last = limit.bit_length() - 1
    return sorted({*range(0, last + 1, 2), last})


def measure(power: int, thread_counts: Sequence[int], seconds: float) -> list[Entry]:
    """A row for each number of threads."""
    random, shape = np.random.default_rng(0), matrix(power)
    params, grads = np.empty(shape, np.float32), np.empty(shape, np.float32)
    for array, scale in ((params, 0.05), (grads, 0.01)):
        random.standard_normal(dtype=np.float32, out=array)
        array *= np.float32(scale)
    state = adafactor.init(params)

    def step_with(threads: int) -> None:
        adafactor.set_num_threads(threads)
        adafactor.step(params, grads, state)

    # One object for each, so that a loop's variable is not shared.
    contestants = {str(count): (lambda count=count: step_with(count)) for count in thread_counts}
    medians = timer.alternate(contestants, seconds=seconds)
    return [
        {
            "elements": params.size,
            "shape": shape,
            "threads": count,
            "milliseconds": 1e3 * medians[str(count)],
            "nanoseconds_per_element": 1e9 * medians[str(count)] / params.size,
        }
        for count in thread_counts
    ]


def free_bytes() -> int:
    """Memory that the system can hand out without swapping; all of it where Linux does not tell."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        return machine.memory_bytes() or 1 << 30


def table(result: results.Result) -> str:
    """The rows, with each cost beside that of the largest leaf."""
    largest = {row["threads"]: row["nanoseconds_per_element"] for row in result["rows"]}
    lines = [f"{'elements':>12}{'threads':>9}{'ms':>12}{'ns an element':>15}{'/ largest':>11}"]
    for row in result["rows"]:
        cost = row["nanoseconds_per_element"]
        counts = f"{row['elements']:12,}{row['threads']:9}"
        lines.append(f"{counts}{row['milliseconds']:12.4f}{cost:15.4f}{cost / largest[row['threads']]:11.2f}")
    return "\n".join(lines)


def count(text: str) -> int:
    """A number of elements, such as 4096 or 512M."""
    unit = UNITS.get(text[-1:].upper())
    number = int(text[:-1]) * unit if unit else int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text}, expected at least 1")
    return number


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = command_line.parser("scaling", __doc__)
    parser.add_argument(
        "--max-elements", type=count, default=count("512M"), metavar="N", help="largest leaf (default: 512M)"
    )
    command_line.add_thread_counts(parser, ", at most two of them")
    parser.add_argument(
        "--seconds", type=command_line.duration, default=3, help="spent on each size (default: 3)"
    )
    command_line.add_out(parser, "scaling")
    settings = parser.parse_args(arguments)
    if len(set(settings.threads)) > 2:
        parser.error("--threads: at most two numbers")
    return settings


def main(arguments: Sequence[str] | None = None) -> None:
    settings = parse(arguments)
    room = free_bytes() // BYTES_PER_ELEMENT
    if room < settings.max_elements:
        print(f"left out: more than {room:,} elements, for want of memory", file=sys.stderr)
    thread_counts = sorted(set(settings.threads))
    result = results.begin("scaling", threads=thread_counts[-1], thread_counts=thread_counts)
    powers = sizes(min(settings.max_elements, room))
    # Beyond the time that was asked for: filling the arrays, and rounds that cannot be fewer than five.
    progress = Progress([settings.seconds + 2.0**power * 2e-8 for power in powers])
    result["rows"] = []
    for power in powers:
        rows, cols = matrix(power)
        progress.begin(f"{rows} x {cols}")
        result["rows"] += measure(power, thread_counts, settings.seconds)
    adafactor.set_num_threads(0)
    print(table(result))
    results.write(result, pictures.of_scaling, settings.out)


if __name__ == "__main__":
    main()
