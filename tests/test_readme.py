"""The documents keep their word: their Python blocks run and print what the text blocks after them show.

A block has a namespace of its own; one after the line `<!-- continues -->` goes on in the one before.
"""

import contextlib
import io
import itertools
import re
from dataclasses import dataclass, field
from pathlib import Path

import pytest

import sources

BLOCK = re.compile(
    r"(?P<mark><!-- continues -->\n+)?^```(?P<language>\w+)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL
)


@dataclass
class Program:
    """The blocks of one namespace: the line, the code and the output shown after it, None where none is."""

    file: Path
    blocks: list[tuple[int, str, str | None]] = field(default_factory=list)

    @property
    def name(self) -> str:
        return f"{self.file.name}:{self.blocks[0][0]}"


def programs(file: Path) -> list[Program]:
    found: list[Program] = []
    text = file.read_text(encoding="utf-8")
    matches = list(BLOCK.finditer(text))
    for match, following in itertools.zip_longest(matches, matches[1:]):
        if match["language"] != "python":
            continue
        shown = None
        if (
            following
            and following["language"] == "text"
            and not text[match.end() : following.start()].strip()
        ):
            shown = following["body"]
        if not match["mark"]:
            found.append(Program(file))
        found[-1].blocks.append((text.count("\n", 0, match.start("body")) + 1, match["body"], shown))
    return found


DOCUMENTS = [
    sources.ROOT / "README.md",
    sources.ROOT / "CONTRIBUTING.md",
    *sorted((sources.ROOT / "docs").rglob("*.md")),
]
PROGRAMS = [program for document in DOCUMENTS for program in programs(document)]


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.name)
def test_a_python_block_prints_what_the_document_shows(program, tmp_path, monkeypatch):
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


def test_links_between_documents_lead_somewhere():
    for document in DOCUMENTS:
        for target in re.findall(r"\]\((?!https?://|#)([^)#]+)", document.read_text(encoding="utf-8")):
            assert (document.parent / target).exists(), f"{document.name}: {target}"
