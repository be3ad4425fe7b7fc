"""The project's own source files, as text and as what they include or import, for the tests of its rules."""

import ast
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = (".ci", "benchmarks", "cmake", "docs", "include", "python", "src", "tests")
CPP = {".hpp", ".cpp", ".cu", ".cuh"}
NOT_OURS = {"__pycache__", "build", "results", "data"}

# For another Python: it finds the modules of the tests, and the package that is tested, wherever it lies.
PYTHONPATH = os.pathsep.join(filter(None, [str(ROOT / "tests/support"), os.environ.get("PYTHONPATH", "")]))

_CPP_COMMENT = re.compile(r'("(?:\\.|[^"\\\n])*")|//[^\n]*|/\*.*?\*/', re.DOTALL)
_INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*([<"][^>"]+)[>"]', re.MULTILINE)


def files(root: Path = ROOT) -> list[Path]:
    """Every file that somebody wrote: those of the root and of the folders of the layout."""
    top = [path for path in root.iterdir() if path.is_file() and not path.name.startswith(".git")]
    below = [path for folder in FOLDERS for path in (root / folder).rglob("*") if path.is_file()]
    own = [path for path in top + below if NOT_OURS.isdisjoint(path.relative_to(root).parts)]
    return sorted(path for path in own if path.suffix != ".so")


def cpp_files(root: Path = ROOT) -> list[Path]:
    return [path for path in files(root) if path.suffix in CPP]


def python_files(root: Path = ROOT) -> list[Path]:
    return [path for path in files(root) if path.suffix in {".py", ".pyi"}]


def cpp_code(path: Path) -> str:
    """The text without its comments; strings stay."""
    return _CPP_COMMENT.sub(lambda match: match.group(1) or " ", path.read_text(encoding="utf-8"))


def includes(path: Path) -> Iterator[str]:
    """What a C++ file includes, each with its opening `<` or `"` before it."""
    return (match.group(1) for match in _INCLUDE.finditer(cpp_code(path)))


def included_files(path: Path, root: Path = ROOT) -> dict[str, Path | None]:
    """Where each include of a file of the project lies; None for a quoted one that is nowhere."""
    found: dict[str, Path | None] = {}
    for include in includes(path):
        name = include[1:]
        folders = (path.parent, root / "include", root / "src", root / "tests/cpp")
        hits = [(folder / name).resolve() for folder in folders if (folder / name).is_file()]
        if hits or include.startswith('"'):
            found[name] = hits[0] if hits else None
    return found


def imports(path: Path, package: str = "adafactor") -> Iterator[str]:
    """Full names of the modules that a Python file imports, anywhere in it, relative names resolved."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(filter(None, [package if node.level else "", node.module]))
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def wings(root: Path, head: str = "where") -> dict[str, set[str]]:
    """A table of docs/design/map.md: folders and files, and those that each may include or import."""
    page = (root / "docs/design/map.md").read_text(encoding="utf-8")
    table = page.partition(f"| {head} |")[2].partition("\n\n")[0].splitlines()[2:]
    rows = [[re.findall(r"`([\w/.]+)`", cell) for cell in row.split("|")[1:4]] for row in table]
    return {where: set(included) for names, _, included in rows for where in names}


def wing_of(header: str, names: Iterable[str]) -> str:
    """The row of a header's folder, or its own."""
    return next(name for name in names if header == name or (name.endswith("/") and header.startswith(name)))


def write(files: dict[str, str], root: Path) -> None:
    """Files by their paths under a root, each with one line more than its text."""
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text + "\n", encoding="utf-8")
