"""The files in benchmarks/results: a JSON for each question, CPU and number of threads, a picture beside."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import machine

FOLDER = Path(__file__).parent / "results"
Result = dict[str, Any]


def begin(question: str, **settings: Any) -> Result:
    """A result without findings: what it answers, where, and how it was asked."""
    return {"question": question, "machine": machine.describe(), **settings}


def default_path(result: Result) -> Path:
    bare = re.sub(r"\((r|tm)\)|processor|cpu|@.*", "", result["machine"]["cpu"].lower())
    cpu = re.sub(r"[^a-z0-9]+", "-", bare).strip("-")
    return FOLDER / f"{result['question']}-{cpu}-{result['threads']}-threads.json"


def save(result: Result, path: Path) -> None:
    """Write the result alone, into folders that are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def write(result: Result, draw: Callable[[Result], str], out: Path | None) -> None:
    """Write the result, and its picture as an SVG of the same name."""
    path = out or default_path(result)
    save(result, path)
    picture = path.with_suffix(".svg")
    picture.write_text(draw(result), encoding="utf-8")
    print(f"written to {path} and {picture}")


def read(path: Path) -> Result:
    return json.loads(path.read_text(encoding="utf-8"))


def newest(question: str, folder: Path = FOLDER) -> Path | None:
    """The file with the youngest answer to a question; None where it was not asked yet."""
    found = sorted(folder.glob(f"{question}-*.json"))
    return max(found, key=lambda path: read(path)["machine"]["date"], default=None)
