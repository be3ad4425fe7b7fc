"""What the documentation says of the project is so: functions, arguments, knobs and tests exist as named."""

import ast
import inspect
import re

import pytest

import adafactor
import peers
import sources
from documents import DOCUMENTS

DOCS = sources.ROOT / "docs"
INCLUDE = sources.ROOT / "include/adafactor"


def page(name):
    return (DOCS / f"{name}.md").read_text(encoding="utf-8")


FUNCTIONS = re.findall(r"^  - `(\w+)`\n  - `([\w/]+\.hpp)`$", page("algorithm/algorithm"), re.MULTILINE)
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
    rows = dict(re.findall(r"^\| `(\w+)` \| `([^`]*)` \| ", page("coming_from/keras"), re.MULTILINE))
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
    from adafactor.engine.rows import WHOLE_CALL

    sentence = re.search(
        r"those that concern the whole call:\n(.*?)\.\n", page("reference/knobs"), re.DOTALL
    ).group(1)
    assert set(re.findall(r"`(\w+)`", sentence)) == WHOLE_CALL


def test_every_page_is_in_the_table_of_contents():
    tables = re.findall(
        r"^```\{toctree\}\n:hidden:\n:caption: [^\n]+\n\n(.*?)```$", page("index"), re.MULTILINE | re.DOTALL
    )
    pages = {path.relative_to(DOCS).with_suffix("").as_posix() for path in DOCS.rglob("*.md")}
    assert sorted("".join(tables).split()) == sorted(pages - {"index"})


# A file's name in backticks, or a folder's, perhaps with stars in it; what has neither a slash nor such an
# ending is no path.
NAMED = re.compile(r"`((?:[\w.*-]+/)+[\w.*-]*|[\w.*-]+\.(?:cpp|hpp|json|md|py|toml|txt))`")


def nowhere(text, root):
    """The paths in a text that lead nowhere: from the root, the headers, the package, a folder of tests."""
    places = ("", "include/adafactor/", "python/adafactor/", "tests/**/")

    def exists(path):
        return any(found for place in places for found in root.glob(f"{place}{path}"))

    return [path for path in NAMED.findall(text) if not exists(path.rstrip("/"))]


@pytest.mark.parametrize("name", sorted(path.stem for path in (DOCS / "design").glob("*.md")))
def test_a_path_that_the_design_names_exists(name):
    text = page(f"design/{name}")
    assert NAMED.search(text) or name == "words"
    assert nowhere(text, sources.ROOT) == []


def test_a_path_of_the_project_that_another_document_names_exists():
    for document in DOCUMENTS:
        paths = [
            path for path in NAMED.findall(document.read_text(encoding="utf-8")) if is_of_the_project(path)
        ]
        assert nowhere(" ".join(f"`{path}`" for path in paths), sources.ROOT) == [], document.name


def is_of_the_project(path):
    """Whether a path begins with a folder of the project; others are those of a user, or of leaves."""
    return path.partition("/")[0] in sources.FOLDERS


def test_a_path_that_leads_nowhere_is_seen(tmp_path):
    for name in ("include/adafactor/cpu/moments.hpp", "tests/support/oracle.py", ".ci/run"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    good = (
        "`cpu/moments.hpp` `cpu/` `cpu/*.hpp` `include/adafactor` `oracle.py` `support/oracle.py` `.ci/run`"
    )
    assert nowhere(f"{good} `apply` `State.tensors` `a/b or c`", tmp_path) == []
    gone = "`phases/moments.hpp` `phases/` `cpu/*.cuh` `tests/oracle.py` `paper.hpp`"
    assert nowhere(f"{good} {gone}", tmp_path) == gone.replace("`", "").split()
