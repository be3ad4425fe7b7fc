"""What is being measured, and about how long the rest takes, on stderr."""

import sys
import time


class Progress:
    """Counts jobs whose lengths were guessed; the clock corrects the guess as they end."""

    def __init__(self, guesses: list[float]) -> None:
        self._guesses = guesses
        self._begun = 0
        self._start = time.monotonic()

    def begin(self, what: str) -> None:
        done, left = sum(self._guesses[: self._begun]), sum(self._guesses[self._begun :])
        pace = (time.monotonic() - self._start) / done if done else 1
        self._begun += 1
        count = len(self._guesses)
        minutes, seconds = divmod(round(left * pace), 60)
        remaining = f"{minutes} min" if minutes else f"{seconds} s"
        print(f"[{self._begun}/{count}] {what}; about {remaining} left", file=sys.stderr, flush=True)
