"""The documents keep their word: their Python blocks run and print what the text blocks after them show."""

import ast
import contextlib
import io
import re

import pytest

import peers
import sources
from documents import BLOCK, DOCUMENTS, programs

PROGRAMS = [program for document in DOCUMENTS for program in programs(document, "python")]


# What an example may import that the package does not bring.
OPTIONAL = {"equinox", "flax", "haiku", "jax", "torch"}


def imported(program):
    """The packages that a program imports."""
    nodes = [node for _, body, _ in program.blocks for node in ast.walk(ast.parse(body))]
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module for node in nodes if isinstance(node, ast.ImportFrom)]
    return {name.partition(".")[0] for name in names}


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.name)
def test_a_python_block_prints_what_the_document_shows(program, tmp_path, monkeypatch):
    for name in sorted(imported(program) & OPTIONAL):
        peers.require(name)
    monkeypatch.chdir(tmp_path)  # what an example writes does not land in the project
    namespace = {"__name__": "__main__"}
    for line, body, shown in program.blocks:
        printed = io.StringIO()
        # The empty lines make a traceback point at the line of the document.
        code = compile("\n" * (line - 1) + body, str(program.file), "exec")
        with contextlib.redirect_stdout(printed):
            exec(code, namespace)
        assert printed.getvalue() == (shown or ""), f"{program.file.name}:{line}"


def test_the_readme_has_a_program_that_shows_its_output():
    readme = [program for program in PROGRAMS if program.file.name == "README.md"]
    assert any(shown for program in readme for _, _, shown in program.blocks)


def test_the_readme_begins_with_the_two_commands():
    blocks = list(BLOCK.finditer((sources.ROOT / "README.md").read_text(encoding="utf-8")))
    assert [(match["language"], match["body"]) for match in blocks[:2]] == [
        ("sh", 'pip install ".[demo]" && python -m adafactor demo\n'),
        ("sh", 'pip install ".[test]" && pytest\n'),
    ]


def test_the_readme_steps_on_the_arrays_of_each_framework():
    readme = [program for program in PROGRAMS if program.file.name == "README.md"]
    assert {"numpy", "jax", "torch"} <= {name for program in readme for name in imported(program)}


def test_links_between_documents_lead_somewhere():
    for document in DOCUMENTS:
        prose = BLOCK.sub("", document.read_text(encoding="utf-8"))
        for target in re.findall(r"\]\((?!https?://|#)([^)#]+)", prose):
            assert (document.parent / target).exists(), f"{document.name}: {target}"
