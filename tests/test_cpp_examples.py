"""The C++ programs in documents and comments of headers compile, run, and print what is shown after them."""

import itertools
import re
from dataclasses import dataclass
from pathlib import Path

import pytest

import sources
from cpp_build import compiler, require_eigen, run

BLOCK = re.compile(r"^```(?P<language>\w+)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)
COMMENT = re.compile(r"^[ \t]*// ?", re.MULTILINE)


@dataclass(frozen=True)
class Program:
    file: Path
    line: int
    code: str
    shown: str | None

    @property
    def name(self) -> str:
        return f"{self.file.name}:{self.line}"


def programs(file):
    """The cpp blocks of a document or of a header's comments, each with the text block right after it."""
    text = file.read_text(encoding="utf-8")
    if file.suffix == ".hpp":
        text = COMMENT.sub("", text)
    matches = list(BLOCK.finditer(text))
    for match, following in itertools.zip_longest(matches, matches[1:]):
        if match["language"] != "cpp":
            continue
        between = text[match.end() : following.start()] if following else "nothing follows"
        shown = following["body"] if not between.strip() and following["language"] == "text" else None
        yield Program(file, text.count("\n", 0, match.start()) + 2, match["body"], shown)


DOCUMENTS = [sources.ROOT / "README.md", *sorted((sources.ROOT / "docs").rglob("*.md"))]
HEADERS = sorted((sources.ROOT / "include").rglob("*.hpp"))
PROGRAMS = [program for file in (*DOCUMENTS, *HEADERS) for program in programs(file)]


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.name)
def test_a_program_prints_what_is_shown_after_it(program, tmp_path):
    folders = [f"-I{sources.ROOT / 'include'}"]
    if "<Eigen/" in program.code:
        folders += ["-isystem", require_eigen()]
    source = tmp_path / "program.cpp"
    source.write_text(program.code)
    warnings = ("-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Werror")
    built = run(compiler("g++"), "-std=c++20", "-O1", *warnings, *folders, source, "-o", tmp_path / "program")
    assert built.returncode == 0, built.stdout
    ran = run(tmp_path / "program", cwd=tmp_path)
    assert (ran.returncode, ran.stdout) == (0, program.shown)


def test_the_readme_and_the_public_headers_show_a_program():
    shown = {program.file.name for program in PROGRAMS}
    assert {"README.md", "optimizer.hpp", "eigen.hpp"} <= shown
