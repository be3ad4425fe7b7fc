"""Containers and leaves for the tests of trees, and what an error says."""

from __future__ import annotations

import collections
import dataclasses
import typing

import pytest


class Leaf:
    """Stands for an array of any library: nothing is asked of a leaf here."""


class Pair(typing.NamedTuple):
    w: typing.Any
    b: typing.Any


class Swapped(typing.NamedTuple):
    b: typing.Any
    w: typing.Any


@dataclasses.dataclass
class Dense:
    w: typing.Any
    b: typing.Any


@dataclasses.dataclass(frozen=True, slots=True)
class Frozen:
    w: typing.Any
    b: typing.Any


@dataclasses.dataclass
class Node:
    child: typing.Any = None


class Counted(collections.abc.Mapping):
    """Counts how often each key is read, and raises `error` on the last one."""

    def __init__(self, held: dict, error: BaseException | None = None) -> None:
        self.held, self.error = held, error
        self.reads: collections.Counter = collections.Counter()

    def __getitem__(self, key: object) -> object:
        self.reads[key] += 1
        if self.error is not None and key == list(self.held)[-1]:
            raise self.error
        return self.held[key]

    def __iter__(self) -> typing.Iterator:
        self.reads["iteration"] += 1
        return iter(self.held)

    def __len__(self) -> int:
        return len(self.held)


a, b, c, d = (Leaf() for _ in range(4))


def message(kind: type[Exception], call: typing.Callable[[], object]) -> str:
    with pytest.raises(kind) as caught:
        call()
    assert type(caught.value) is kind
    return str(caught.value)
