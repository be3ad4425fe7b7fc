"""The C++ programs in the documents and in the comments of the headers compile and print what is shown.

Beside them: every name that a header declares has a comment before it.
"""

import re
import subprocess

import pytest

import sources
from cpp_build import built, require_eigen, required
from documents import DOCUMENTS, programs

INCLUDE = sources.ROOT / "include"
HEADERS = sorted((INCLUDE / "adafactor").rglob("*.hpp"))
PROGRAMS = [program for file in [*DOCUMENTS, *HEADERS] for program in programs(file, "cpp")]

# What lies within a namespace of details is nobody's.
DETAILS = re.compile(
    r"^namespace (?:[^\n]* )?(?:\w+_)?detail \{$.*?^\}+  // namespace (?:[^\n]*::)?(?:\w+_)?detail$",
    re.MULTILINE | re.DOTALL,
)
DECLARES = re.compile(r"(template|struct|class|enum class|using|concept|inline|constexpr|ADAFACTOR_INLINE)\b")


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.name)
def test_a_cpp_block_prints_what_is_shown_after_it(program, tmp_path):
    ((_, body, shown),) = program.blocks
    source = tmp_path / "program.cpp"
    source.write_text(body, encoding="utf-8")
    warnings = ("-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Werror")
    folders = [f"-I{INCLUDE}"]
    if "<Eigen/" in body:
        folders += ["-isystem", require_eigen()]
    result = built((required("g++"), "-std=c++20", *warnings, *folders), source, tmp_path / "program")
    assert result.returncode == 0, result.stdout
    printed = subprocess.run([tmp_path / "program"], capture_output=True, text=True, check=True).stdout
    assert printed == shown


def test_the_public_headers_and_the_page_for_cpp_show_a_program():
    shown = {program.file.name for program in PROGRAMS}
    assert {"cpp.md", "optimizer.hpp", "eigen.hpp"} <= shown


def undescribed(text: str) -> list[str]:
    """Declarations in a header's namespace without a comment; neighbours without an empty line share one."""
    found = []
    described = False
    before = ""
    for line in DETAILS.sub("", text).splitlines():
        if line.startswith("//"):
            described = True
        elif not line:
            described = False
        elif DECLARES.match(line) and not described and not before.startswith("template"):
            found.append(line)
        before = line
    return found


# The arithmetic of lanes is described once, at `Lanes`: its operators do what they are called.
@pytest.mark.parametrize(
    "header", [path for path in HEADERS if path.stem != "numbers"], ids=lambda path: path.stem
)
def test_every_declaration_of_a_header_has_a_comment(header):
    assert undescribed(header.read_text(encoding="utf-8")) == []


def test_a_declaration_without_a_comment_is_seen():
    described = "// Pairs.\nstruct A {\n  int x;\n};\n\n"
    text = described + "struct B {};\nstruct C;\n\n// One.\nenum class D { a };\nusing E = D;\n"
    assert undescribed(text) == ["struct B {};", "struct C;"]
