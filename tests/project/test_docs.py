"""What the documentation says of the project is so: functions, arguments, knobs and tests exist as named."""

import ast
import inspect
import re

import pytest

import adafactor
import peers
import sources

DOCS = sources.ROOT / "docs"
INCLUDE = sources.ROOT / "include/adafactor"


def page(name):
    return (DOCS / f"{name}.md").read_text(encoding="utf-8")


FUNCTIONS = re.findall(r"^  - `(\w+)`\n  - `([\w/]+\.hpp)`$", page("algorithm"), re.MULTILINE)
TESTS = sorted(set(re.findall(r"`(tests/[\w/]+\.(?:py|cpp))(?:::(\w+))?`", page("guarantees"))))


@pytest.mark.parametrize(("function", "header"), FUNCTIONS)
def test_a_function_of_the_algorithm_stands_in_its_header(function, header):
    code = sources.cpp_code(INCLUDE / header)
    assert re.search(rf"^[^/]*(?:\b(?:class|struct) {function} \{{|[\w>*] {function}\()", code, re.MULTILINE)


def test_the_algorithm_names_a_function_for_every_phase():
    functions = {name for name, _ in FUNCTIONS}
    assert {"moments_of_tile", "factors_of_tile", "rms_of_tile", "apply_to_tile"} <= functions


@pytest.mark.parametrize(("file", "name"), TESTS)
def test_a_test_of_a_guarantee_exists(file, name):
    path = sources.ROOT / file
    assert path.exists()
    if name:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_every_argument_of_keras_is_described_with_its_default():
    keras = peers.require("keras")
    rows = dict(re.findall(r"^\| `(\w+)` \| `([^`]*)` \| ", page("keras"), re.MULTILINE))
    ours = inspect.signature(adafactor.presets.keras).parameters
    theirs = inspect.signature(keras.optimizers.Adafactor).parameters
    named = [name for name in theirs if theirs[name].kind is not inspect.Parameter.VAR_KEYWORD]
    assert list(rows) == named
    assert {name: ast.literal_eval(text) for name, text in rows.items()} == {
        name: ours[name].default for name in rows
    }
    # Keras' own default of the name is None, and its constructor then takes "adafactor".
    assert {name: theirs[name].default for name in rows if name != "name"} == {
        name: ours[name].default for name in rows if name != "name"
    }


def test_what_cannot_be_overridden_is_named():
    from adafactor.plan import WHOLE_CALL

    sentence = re.search(r"those that concern the whole call:\n(.*?)\.\n", page("knobs"), re.DOTALL).group(1)
    assert set(re.findall(r"`(\w+)`", sentence)) == WHOLE_CALL


def test_every_page_is_in_the_table_of_contents():
    listed = re.search(
        r"^```\{toctree\}\n:hidden:\n\n(.*?)```$", page("index"), re.MULTILINE | re.DOTALL
    ).group(1)
    pages = {path.relative_to(DOCS).with_suffix("").as_posix() for path in DOCS.rglob("*.md")}
    assert sorted(listed.split()) == sorted(pages - {"index"})
