"""Whether a build is slower than another, by the times that both took in rounds: what "within 2 %" means."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

LEAST_ROUNDS = 20
LIMIT = 1.02
RESAMPLES = 10_000


class Judgement(NamedTuple):
    """The median ratio of new to old, the 95 % interval of it, and what that says."""

    ratio: float
    lower: float
    upper: float
    verdict: str  # "slower", "same" or "faster"


def judge(old: Sequence[float], new: Sequence[float], limit: float = LIMIT) -> Judgement:
    """Two builds are the same speed if the interval has its lower end at or below the limit.

    The interval is that of the percentiles of a bootstrap over the rounds. The same times give the same one.
    "faster" is what would be "slower" with the builds exchanged.

    Raises:
        ValueError: there are too few rounds for an interval that means something.

    >>> judge(20 * [1.0], 20 * [1.03])
    Judgement(ratio=1.03, lower=1.03, upper=1.03, verdict='slower')
    """
    if len(old) < LEAST_ROUNDS:
        raise ValueError(f"{len(old)} rounds, expected at least {LEAST_ROUNDS}")
    ratios = np.divide(new, old)
    drawn = np.random.default_rng(0).choice(ratios, (RESAMPLES, len(ratios)))
    lower, upper = np.quantile(np.median(drawn, axis=1), [0.025, 0.975])
    verdict = "slower" if lower > limit else "faster" if upper < 1 / limit else "same"
    return Judgement(float(np.median(ratios)), float(lower), float(upper), verdict)
