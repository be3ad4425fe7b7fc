"""The one way that the benchmarks take times: contestants in turn, so that a disturbance hits them all.

Absolute times mean little on a shared machine; the ratio of two medians taken in alternation means a lot.
"""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np


def lower_quartile(seconds: Sequence[float]) -> float:
    """What counts where one is alone: what disturbs a call only ever makes it longer."""
    return float(np.quantile(seconds, 0.25))


def alternate(
    contestants: Mapping[str, Callable[[], object]], *, seconds: float, turn_seconds: float = 0.03
) -> dict[str, float]:
    """Median seconds of one call of each contestant.

    The contestants take turns until `seconds` are spent on all of them together, for at least five rounds. A
    turn is one untimed call, which brings back what the others pushed out of the caches, then timed calls for
    about `turn_seconds`, at least one.
    """
    calls = {}
    for name, call in contestants.items():
        call()  # the first call builds what later ones reuse
        start = time.perf_counter()
        call()
        calls[name] = max(1, round(turn_seconds / max(time.perf_counter() - start, 1e-7)))
    times: dict[str, list[float]] = {name: [] for name in contestants}
    rounds, end = 0, time.perf_counter() + seconds
    while rounds < 5 or time.perf_counter() < end:
        rounds += 1
        for name, call in contestants.items():
            call()
            for _ in range(calls[name]):
                start = time.perf_counter()
                call()
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(taken) for name, taken in times.items()}
