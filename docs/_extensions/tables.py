"""Sphinx directives for what the sources already say: the table of knobs, and what each C++ header holds.

`{knobs}` asks the compiled core for its own table. `{headers}` reads the headers: the comment that opens a
file, and each declaration in its namespace that a comment stands before; `{declared}` shows one of these.
"""

import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from docutils import nodes
from sphinx.util.docutils import SphinxDirective

from adafactor import Config, _core

HEADERS = Path(__file__).resolve().parents[2] / "include/adafactor"

_COMMENT = r"(?P<comment>(?:^//[^\n]*\n)+)"
_NAME = r"(?P<kind>enum class|struct|class)\s+(?P<type>\w+)|[\w:<>,&*\s]*?\b(?P<function>\w+)\s*[({=]"
_DECLARATION = re.compile(
    rf"{_COMMENT}(?:^template [^\n]*\n)*(?:^  requires [^\n]*\n(?:^ {{4,}}[^\n]*\n)*)?"
    rf"^(?:inline |constexpr |static |ADAFACTOR_INLINE )*(?:{_NAME})",
    re.MULTILINE,
)
_DETAIL = re.compile(
    r"^namespace (?:[^\n]* )?(?:\w+_)?detail \{$.*?^\}+  // namespace (?:[^\n]*::)?(?:\w+_)?detail$",
    re.MULTILINE | re.DOTALL,
)


class Declaration(NamedTuple):
    """A name of a header and the comment before it."""

    name: str
    comment: str


def pieces(comment: str) -> Iterator[tuple[str | None, str]]:
    """What `//` lines say: (None, a paragraph), and (language, text) for a fenced example."""
    lines = [re.sub(r"^// ?", "", line) for line in comment.splitlines()]
    text = "\n".join(lines)
    for part in re.split(r"(^```\w+\n.*?^```$)", text, flags=re.MULTILINE | re.DOTALL):
        fence = re.fullmatch(r"```(\w+)\n(.*)```", part, re.DOTALL)
        if fence:
            yield fence[1], fence[2]
        else:
            yield from (
                (None, " ".join(words.split())) for words in re.split(r"\n\s*\n", part) if words.strip()
            )


def opening(text: str) -> str:
    """What a header says of itself: the comment that it opens with."""
    match = re.match(r"(?:^//[^\n]*\n)+", text, re.MULTILINE)
    return match.group() if match else ""


def declarations(text: str) -> Iterator[Declaration]:
    """The commented declarations of a header, those of its inner namespaces left out."""
    for match in _DECLARATION.finditer(_DETAIL.sub("", text)):
        yield Declaration(match["type"] or match["function"], match["comment"])


def paragraph(*children: nodes.Node) -> nodes.paragraph:
    return nodes.paragraph("", "", *children)


def prose(text: str) -> nodes.paragraph:
    """A paragraph in which `text` between backticks is code."""
    parts = re.split(r"`([^`]+)`", text)
    made = [nodes.literal(part, part) if i % 2 else nodes.Text(part) for i, part in enumerate(parts)]
    return paragraph(*made)


def table(titles: list[str], widths: list[int], rows: list[list[nodes.Node]]) -> nodes.table:
    group = nodes.tgroup(cols=len(titles))
    group += [nodes.colspec(colwidth=width) for width in widths]
    head, body = nodes.thead(), nodes.tbody()
    for part, cells in [
        (head, [paragraph(nodes.Text(title)) for title in titles]),
        *((body, row) for row in rows),
    ]:
        part += nodes.row("", *(nodes.entry("", cell) for cell in cells))
    group += [head, body]
    return nodes.table("", group)


def code(value: Any) -> nodes.literal:
    return nodes.literal(repr(value), repr(value))


# Which knobs may be None stands in the annotations of Config alone.
OPTIONAL = {field.name for field in dataclasses.fields(Config) if str(field.type).endswith("| None")}


def allowed(name: str, words: list[Any] | None, bounds: str | None) -> nodes.paragraph:
    """What a knob takes: one of some words, a number in a range, or a truth value; and None."""
    texts = [repr(word) for word in words or ([] if bounds else [True, False])]
    texts = [bounds] if bounds else [f"`{text}`" for text in texts]
    return prose(", ".join(texts) + ("; or `None`" if name in OPTIONAL else ""))


class Knobs(SphinxDirective):
    """The knobs as the core lists them: name, default, what is allowed, one sentence."""

    def run(self) -> list[nodes.Node]:
        rows = []
        for name, (default, words, bounds, sentence) in _core.knobs().items():
            knob = paragraph(nodes.literal(name, name))
            rows.append([knob, paragraph(code(default)), allowed(name, words, bounds), prose(sentence)])
        return [table(["knob", "default", "allowed", "meaning"], [28, 14, 26, 40], rows)]


def described(comment: str) -> list[nodes.Node]:
    """A comment as paragraphs and code blocks."""
    return [
        nodes.literal_block(text, text, language=language) if language else prose(text)
        for language, text in pieces(comment)
    ]


def headers_in(folder: Path) -> list[Path]:
    """The headers of a folder, those of its inner folders after its own."""
    return sorted(folder.rglob("*.hpp"), key=lambda path: (len(path.parts), path))


class Headers(SphinxDirective):
    """Header by header what it is, and the names that it declares.

    `programs` shows what a C++ program includes, the headers at the top of include/adafactor; `folders` shows
    what lies behind them, folder by folder.
    """

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        if self.arguments[0] == "programs":
            return [self.described_headers(sorted(HEADERS.glob("*.hpp")))]
        made: list[nodes.Node] = []
        for folder in sorted(path for path in HEADERS.iterdir() if path.is_dir()):
            name = f"{folder.name}/"
            made.append(nodes.rubric("", "", nodes.literal(name, name)))
            made.append(self.described_headers(headers_in(folder)))
        return made

    def described_headers(self, paths: list[Path]) -> nodes.definition_list:
        made = nodes.definition_list()
        for path in paths:
            self.env.note_dependency(str(path))
            text = path.read_text(encoding="utf-8")
            body = described(opening(text))
            items = []
            for declared in declarations(text):
                first, *rest = described(declared.comment)
                label = nodes.strong("", "", nodes.literal(declared.name, declared.name))
                named = paragraph(label, nodes.Text(": "), *first.children)
                items.append(nodes.list_item("", named, *rest))
            if items:
                body.append(nodes.bullet_list("", *items))
            name = path.relative_to(HEADERS).as_posix()
            term = nodes.term("", "", nodes.literal(name, name))
            made += nodes.definition_list_item("", term, nodes.definition("", *body))
        return made


class Declared(SphinxDirective):
    """What a header says of one name that it declares."""

    required_arguments = 2

    def run(self) -> list[nodes.Node]:
        header, name = self.arguments
        self.env.note_dependency(str(HEADERS / header))
        text = (HEADERS / header).read_text(encoding="utf-8")
        (found,) = (declared for declared in declarations(text) if declared.name == name)
        return described(found.comment)


def setup(app: Any) -> dict[str, Any]:
    app.add_directive("knobs", Knobs)
    app.add_directive("headers", Headers)
    app.add_directive("declared", Declared)
    return {"parallel_read_safe": True}
