"""Regular expressions that choose leaves by their paths, and what lies near one that chooses none."""

from __future__ import annotations

import difflib
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from adafactor.knobs.numbers import shown
from adafactor.trees.paths import joined_plainly

__all__ = ["Choice", "check_pattern", "nearest", "pattern_of_path"]


def pattern_of_path(path: str) -> str:
    """The pattern that finds this path alone; it is looked up, not searched for."""
    return rf"\A{re.escape(path)}\Z"


def _path_of(pattern: str) -> str | None:
    """The path that `pattern_of_path` made the pattern of, None if it did not make it."""
    if not (pattern.startswith(r"\A") and pattern.endswith(r"\Z")):
        return None
    path = re.sub(r"\\(.)", r"\1", pattern[2:-2], flags=re.DOTALL)
    return path if pattern_of_path(path) == pattern else None


def check_pattern(name: str, pattern: Any) -> None:
    """Raise unless the pattern is a string that `re` can compile."""
    if not isinstance(pattern, str):
        raise TypeError(f"{name}: {shown(pattern)}, expected a regular expression")
    if _path_of(pattern) is not None:
        return
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"{name}: {pattern!r} is not a regular expression: {error}") from None


class Choice:
    """Which of some patterns is the first that finds each of some paths.

    A pattern is tried on the path as it is written, where a slash inside a key is ~1, and on the keys joined
    plainly, once for each path. One that was made of a path finds what is written so, else what reads so.

    Attributes:
        first: for each path the index of that pattern, None where none finds it.
        idle: the indices of the patterns that find no path.
        behind: the indices of those that find only paths which an earlier one finds.

    >>> choice = Choice(["bias", "dense/bias", "norm"], ["dense~1bias", "dense~1kernel"])
    >>> choice.first, choice.idle, choice.behind
    ([0, None], [2], [1])
    """

    def __init__(self, patterns: Sequence[str], paths: Sequence[str]) -> None:
        """Try them."""
        self.first: list[int | None] = [None] * len(paths)
        names = [{path, joined_plainly(path)} for path in paths]
        searched: dict[int, re.Pattern[str]] = {}
        looked_up: dict[int, str] = {}
        for index, pattern in enumerate(patterns):
            path = _path_of(pattern)
            if path is None:
                searched[index] = re.compile(pattern)
            else:
                looked_up[index] = path
        found = self._look_up(looked_up, paths)
        self._search(searched, names)
        chosen = set(self.first)
        found |= {index for index in searched if index in chosen or self._finds_late(index, searched, names)}
        self.idle = [index for index in range(len(patterns)) if index not in found]
        self.behind = [index for index in range(len(patterns)) if index in found and index not in chosen]

    def _look_up(self, wanted: dict[int, str], paths: Sequence[str]) -> set[int]:
        """The patterns among these, each of which names a path, that find one."""
        if not wanted:
            return set()
        written = {path: [place] for place, path in enumerate(paths)}
        read = defaultdict[str, list[int]](list)
        for place, path in enumerate(paths):
            read[joined_plainly(path)].append(place)
        found = set()
        for index, path in wanted.items():
            for place in written.get(path) or read.get(path) or []:
                found.add(index)
                if self.first[place] is None:
                    self.first[place] = index
        return found

    def _search(self, searched: dict[int, re.Pattern[str]], names: Sequence[Iterable[str]]) -> None:
        for place, spellings in enumerate(names if searched else ()):
            looked_up = self.first[place]
            for index, pattern in searched.items():
                if looked_up is not None and index > looked_up:
                    break
                if any(map(pattern.search, spellings)):
                    self.first[place] = index
                    break

    def _finds_late(
        self, index: int, searched: dict[int, re.Pattern[str]], names: Sequence[Iterable[str]]
    ) -> bool:
        """Whether a pattern finds one of the paths on which it was not tried, after an earlier one."""
        return any(
            first is not None and first < index and any(map(searched[index].search, spellings))
            for first, spellings in zip(self.first, names, strict=True)
        )


def nearest(pattern: str, paths: Sequence[str], count: int = 3) -> list[str]:
    """The paths that somebody may have meant who wrote a pattern that finds none, the likeliest first.

    >>> nearest("LayerNorm", ["layer_norm/scale", "dense/bias", "layer_norm/bias"])
    ['layer_norm/scale', 'layer_norm/bias']
    """
    with_part: defaultdict[str, list[str]] = defaultdict(list)
    for path in paths:
        for part in {path, *path.split("/")}:
            with_part[_letters(part)].append(path)
    close = difflib.get_close_matches(_letters(pattern), with_part, n=count)
    found = dict.fromkeys(path for part in close for path in with_part[part])
    return list(found)[:count]


def _letters(text: str) -> str:
    """What is left without marks, so that LayerNorm and layer_norm are alike."""
    return re.sub(r"[\W_]", "", re.sub(r"\\[AZbBdDsSwW]", "", text)).lower()
