"""What the public docstrings show is true: each public name has an example, and every example is run."""

import doctest
import importlib
import inspect
import pkgutil

import pytest

import adafactor

MODULES = sorted(
    ["adafactor", *(found.name for found in pkgutil.walk_packages(adafactor.__path__, "adafactor."))]
)
FINDER = doctest.DocTestFinder(exclude_empty=True)
RULES = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def public_callables():
    """Functions and classes that a user reaches by name: those of the package and of its public modules."""
    for place in (adafactor, adafactor.presets, adafactor.schedules):
        for name in place.__all__:
            thing = getattr(place, name)
            if inspect.isclass(thing) or inspect.isroutine(thing):
                yield pytest.param(thing, id=f"{place.__name__}.{name}")


@pytest.mark.parametrize("module", [name for name in MODULES if not name.endswith(("_core", "__main__"))])
def test_the_examples_in_docstrings_run(module, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    runner = doctest.DocTestRunner(optionflags=RULES)
    report: list[str] = []
    for example in FINDER.find(importlib.import_module(module), module):
        runner.run(example, out=report.append)
    assert not runner.failures, "".join(report)


@pytest.mark.parametrize("thing", list(public_callables()))
def test_a_public_name_has_a_docstring_with_an_example(thing):
    if inspect.isclass(thing) and issubclass(thing, Exception):
        assert inspect.getdoc(thing)
    else:
        assert ">>>" in (inspect.getdoc(thing) or "")
