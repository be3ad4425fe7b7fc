"""What the public docstrings show is true: each public name has an example, and every example is run."""

import dataclasses
import doctest
import importlib
import inspect
import pkgutil
import re

import pytest

import adafactor
import peers

MODULES = sorted(
    ["adafactor", *(found.name for found in pkgutil.walk_packages(adafactor.__path__, "adafactor."))]
)
FINDER = doctest.DocTestFinder(exclude_empty=True)
PARSER = doctest.DocTestParser()
RULES = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def public_places():
    """The package and its public modules: those that it hands out by name."""
    modules = [getattr(adafactor, name) for name in adafactor.__all__]
    in_shape = [importlib.import_module(f"adafactor.{name}") for name in ("torch",) if peers.require(name)]
    return [adafactor, *(thing for thing in modules if inspect.ismodule(thing)), *in_shape]


def public_callables():
    """Functions and classes that a user reaches by name: those of the package and of its public modules."""
    for place in public_places():
        for name in place.__all__:
            thing = getattr(place, name)
            if inspect.isclass(thing) or inspect.isroutine(thing):
                yield pytest.param(thing, id=f"{place.__name__}.{name}")


def public_members():
    """Methods and properties of those classes, those that they inherit from the package among them.

    What they inherit from a framework is its own affair.
    """
    for parameter in public_callables():
        (cls,) = parameter.values
        if not inspect.isclass(cls) or issubclass(cls, Exception):
            continue
        for name, member in inspect.getmembers(cls):
            function = member.fget if isinstance(member, property) else member
            if name.startswith("_") or not (getattr(function, "__module__", None) or "adafactor").startswith(
                "adafactor"
            ):
                continue
            if inspect.isroutine(member) or isinstance(member, property):
                yield pytest.param(cls, name, id=f"{parameter.id}.{name}")


def examples(thing):
    """The source lines of the examples in a docstring."""
    return [example.source for example in PARSER.get_examples(inspect.getdoc(thing) or "")]


def shows(source, name):
    return re.search(rf"\b{name}\b", source) is not None


def described(doc):
    """The names that the section of arguments or of attributes describes."""
    section = re.search(r"^(?:Args|Arguments|Attributes):\n((?:(?: .*)?\n)*)", f"{doc}\n", re.MULTILINE)
    return re.findall(r"^    \*{0,2}(\w+): .", section.group(1), re.MULTILINE) if section else []


@pytest.mark.parametrize("module", [name for name in MODULES if not name.endswith(("_core", "__main__"))])
def test_the_examples_in_docstrings_run(module, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    runner = doctest.DocTestRunner(optionflags=RULES)
    report: list[str] = []
    for example in FINDER.find(importlib.import_module(module), module):
        runner.run(example, out=report.append)
    assert not runner.failures, "".join(report)


def test_no_example_is_skipped():
    for module in MODULES:
        for found in FINDER.find(importlib.import_module(module), module):
            assert not any(example.options.get(doctest.SKIP) for example in found.examples), found.name


@pytest.mark.parametrize("thing", list(public_callables()))
def test_a_public_name_has_a_docstring_with_an_example(thing):
    if inspect.isclass(thing) and issubclass(thing, Exception):
        assert inspect.getdoc(thing)
        return
    found = PARSER.get_examples(inspect.getdoc(thing) or "")
    assert found
    assert any(example.want for example in found)  # it ends in something printed
    assert inspect.isclass(thing) or any(shows(example.source, thing.__name__) for example in found)


@pytest.mark.parametrize(("cls", "name"), list(public_members()))
def test_a_public_method_has_a_docstring_and_is_shown_in_an_example(cls, name):
    assert inspect.getdoc(getattr(cls, name))
    # An example may show several: in the docstring of the method, of its class, or of another of its methods.
    own = [member for _, member in inspect.getmembers(cls) if inspect.isroutine(member)]
    assert any(shows(source, name) for thing in (cls, *own) for source in examples(thing))


# A state is made by `init`; what its constructor takes is not for users.
@pytest.mark.parametrize("thing", [p for p in public_callables() if p.values != (adafactor.State,)])
def test_a_docstring_describes_every_argument(thing):
    if inspect.isclass(thing) and issubclass(thing, Exception):
        return
    names = [name for name in inspect.signature(thing).parameters if name != "self"]
    assert described(inspect.getdoc(thing)) == names


def test_the_docstring_of_the_config_states_the_defaults():
    text = " ".join(adafactor.Config.__doc__.split())
    for field in dataclasses.fields(adafactor.Config):
        default = repr(field.default).replace("'", '"')
        assert re.search(rf" {field.name}: [^:]*(?:: [^:]*)*? Default: {re.escape(default)}\.", text), (
            field.name
        )


def test_help_shows_the_knobs_and_not_what_takes_any_name():
    assert list(inspect.signature(adafactor.Config).parameters) == [
        field.name for field in dataclasses.fields(adafactor.Config)
    ]
