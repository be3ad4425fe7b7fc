"""The fenced blocks of the documents and of the headers' comments: programs, and the output shown after them.

A Python block has a namespace of its own; one after the line `<!-- continues -->` goes on in the one before.
A C++ block is a whole program.
"""

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import sources

BLOCK = re.compile(
    r"(?P<mark><!-- continues -->\n+)?^```(?P<language>\w+)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL
)
DOCUMENTS = [
    sources.ROOT / "README.md",
    sources.ROOT / "CONTRIBUTING.md",
    *(path for path in sources.files() if path.suffix == ".md" and "docs" in path.parts),
]


@dataclass
class Program:
    """The blocks of one namespace: the line, the code and the output shown after it, None where none is."""

    file: Path
    blocks: list[tuple[int, str, str | None]] = field(default_factory=list)

    @property
    def name(self) -> str:
        return f"{self.file.name}:{self.blocks[0][0]}"


def text_of(file: Path) -> str:
    """The text of a document; of a header its comments, everything else left as empty lines."""
    text = file.read_text(encoding="utf-8")
    if file.suffix == ".md":
        return text
    return "".join(
        re.sub(r"^ *// ?", "", line) if re.match(r" *//", line) else "\n"
        for line in text.splitlines(keepends=True)
    )


def programs(file: Path, language: str) -> Iterator[Program]:
    """The programs of a file in one language."""
    text = text_of(file)
    found: list[Program] = []
    matches = list(BLOCK.finditer(text))
    for match, following in itertools.zip_longest(matches, matches[1:]):
        if match["language"] != language:
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
    yield from found
