"""How the project's files look: their length, their names, and how they begin."""

import ast
import re
from pathlib import Path

import sources

ROOT = sources.ROOT
MOST_LINES = 400


def long_files(root: Path) -> list[str]:
    """Source files, with their lines, that want to be two."""
    found = []
    for path in [*sources.cpp_files(root), *sources.python_files(root)]:
        lines = len(path.read_text(encoding="utf-8").splitlines())
        if lines > MOST_LINES:
            found.append(
                f"{path.relative_to(root).as_posix()} has {lines} lines, expected {MOST_LINES} at most"
            )
    return found


def test_no_source_file_is_longer_than_is_read_at_once():
    assert long_files(ROOT) == []


def test_a_file_that_is_too_long_is_seen(tmp_path):
    # Each file ends with the line that `write` adds to it.
    sources.write({f"tests/{name}": "\n" * (MOST_LINES - 1) for name in ("a.py", "a.hpp", "a.md")}, tmp_path)
    assert long_files(tmp_path) == []
    sources.write({f"tests/{name}": "\n" * MOST_LINES for name in ("a.py", "b/a.hpp", "a.md")}, tmp_path)
    assert long_files(tmp_path) == [
        "tests/b/a.hpp has 401 lines, expected 400 at most",
        "tests/a.py has 401 lines, expected 400 at most",
    ]


def test_no_file_is_a_drawer_for_everything():
    drawers = {"utils", "util", "helpers", "helper", "common", "misc"}
    assert [path for path in sources.files() if path.stem.lower() in drawers] == []


def test_every_source_file_opens_with_a_word_to_a_stranger():
    for path in sources.cpp_files():
        assert path.read_text(encoding="utf-8").startswith(("//", "/*")), path
    for path in sources.python_files():
        text = path.read_text(encoding="utf-8")
        assert text.startswith("# ") or ast.get_docstring(ast.parse(text)), path


def test_nothing_is_left_to_do():
    marks = re.compile("|".join(["TO" + "DO", "FIX" + "ME", "XX" + "X", "HA" + "CK"]))
    text = [
        path for path in sources.files() if path.suffix not in {".png", ".ico"} and path.name != "LICENSE"
    ]
    assert [path for path in text if marks.search(path.read_text(encoding="utf-8"))] == []
