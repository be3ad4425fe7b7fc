"""Writes the newest results into the documents, so that no figure in them is typed.

`python -m benchmarks.documents` does it. What stands between `<!-- benchmarks: NAME -->` and
`<!-- benchmarks end -->` in a document is the block NAME: a table, and the picture beside it, of the result
in benchmarks/results with the youngest date. A block of a question that was not asked yet is empty.
"""

import os
import re
from collections.abc import Callable
from pathlib import Path

from benchmarks import parts, results
from benchmarks.contestants import CONTESTANTS, OURS, PEERS, PROPAGATE, ROUTES
from benchmarks.pictures import counted, significant
from benchmarks.results import FOLDER, Result
from benchmarks.rows import Entry
from benchmarks.steps import CATCHES
from benchmarks.tables import megabytes

ROOT = Path(__file__).resolve().parents[1]
OF_THE_README = 300  # tensors; a transformer of 24 layers has about as many
DOCUMENTS = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "docs/benchmarks.md")
BLOCK = re.compile(
    r"(?P<begin><!-- benchmarks: (?P<name>[\w-]+) -->\n).*?(?P<end><!-- benchmarks end -->)", re.DOTALL
)


def markdown(titles: list[str], rows: list[list[str]], *, words: int = 1) -> str:
    """A table; so many of its first columns are words, and the others are to the right."""
    lines = [titles, ["---"] * words + ["---:"] * (len(titles) - words), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def ratio_of(peer: Entry) -> str:
    return significant(1 / peer["ratio"]) if "ratio" in peer else "-"


def peers_of(result: Result, dtype: str) -> str:
    """Workloads across, contestants down: how many times as long as this project's step each one's takes."""
    measured = [row for row in result["rows"] if row["dtype"] == dtype and "milliseconds" in row]
    if not measured:
        return ""
    plain = [row for row in measured if row["contestant"] == OURS]
    variants = {row["title"]: row for row in measured if row["contestant"] == PROPAGATE}
    largest = plain[0]
    own = [f"**{significant(row['milliseconds'])}**" for row in plain]
    lines = [["**adafactor**, ms", *own, megabytes(largest["peak_extra_bytes"])]]
    if variants:
        found = [variants.get(row["title"]) for row in plain]
        times = [
            significant(other["milliseconds"] / row["milliseconds"]) if other else ""
            for other, row in zip(found, plain, strict=True)
        ]
        lines.append(
            [f"`{CONTESTANTS[PROPAGATE].title}`", *times, megabytes((found[0] or {}).get("peak_extra_bytes"))]
        )
    for name, peer in PEERS.items():
        if not any(name in row["peers"] for row in plain):
            continue
        entries = [row["peers"].get(name, {}) for row in plain]
        lines.append(
            [f"`{peer.title}`", *map(ratio_of, entries), megabytes(entries[0].get("peak_extra_bytes"))]
        )
    return markdown(["", *(row["title"] for row in plain), f"peak MB, {largest['title']}"], lines)


def floor_of(result: Result) -> str:
    """Trees down, numbers of threads across: what an element takes, and its share of the floor."""
    counts = sorted({row["threads"] for row in result["rows"]})
    found = {(row["title"], row["threads"]): row for row in result["rows"]}
    lines = []
    for title in dict.fromkeys(row["title"] for row in result["rows"]):
        rows = [found[title, count] for count in counts]
        cells = [(f"{row['step_nanoseconds']:.2f}", f"**{row['share']:.0%}**") for row in rows]
        lines.append([title, *(cell for pair in cells for cell in pair)])
    titles = [(f"{counted(count, 'thread')}, ns an element", "share of the floor") for count in counts]
    return markdown(["", *(title for pair in titles for title in pair)], lines)


def busy_of(result: Result) -> str:
    """Contestants across, situations down: the median and what nine of ten steps stay below."""
    names = list(dict.fromkeys(name for row in result["rows"] for name in row["found"]))
    lines = []
    for row in result["rows"]:
        cells = [row["found"][name] for name in names]
        times = [f"{significant(cell['median'])} ({significant(cell['p90'])})" for cell in cells]
        lines.append([row["title"], row["situation"], *times])
    return markdown(["milliseconds, the median (p90)", "", *names], lines, words=2)


def options_of(result: Result) -> str:
    rows = [
        [
            each["title"],
            significant(each["milliseconds"]),
            f"{each['ratio']:.2f}",
            f"{each['bytes_ratio']:.2f}",
            f"{each['over_bytes']:.2f}",
        ]
        for each in result["options"]
        if "ratio" in each
    ]
    return (
        markdown(["on 4096x4096", "ms", "beside the plain step", "by its bytes", "over these"], rows)
        if rows
        else ""
    )


def scaling_of(result: Result) -> str:
    counts = result["thread_counts"]
    found = {(row["elements"], row["threads"]): row["nanoseconds_per_element"] for row in result["rows"]}
    sizes = sorted({elements for elements, _ in found})
    rows = [[f"{size:,}", *(significant(found[size, count]) for count in counts)] for size in sizes]
    titles = [f"{count} thread{'s' if count > 1 else ''}, ns an element" for count in counts]
    return markdown(["elements", *titles], rows)


def accuracy_of(result: Result) -> str:
    titles = [
        f"{row['title']}, {what}"
        for row in result["rows"]
        for what in ("units at worst", "correctly rounded")
    ]
    names = dict.fromkeys(name for row in result["rows"] for name in row["found"])
    lines = []
    for name in names:
        cells = []
        for row in result["rows"]:
            found = row["found"][name]
            cells += [significant(found["max_units"]), f"{found['correctly_rounded']:.1%}"]
        lines.append([f"`{CONTESTANTS[name].title}`", *cells])
    return markdown(["", *titles], lines)


def overhead_of(result: Result) -> str:
    """Numbers of tensors across, contestants down: microseconds a step."""
    lines = []
    for name in result["names"]:
        taken = [row["found"][name].get("microseconds") for row in result["rows"]]
        title = CONTESTANTS[name].title
        cells = [significant(each) if each else "-" for each in taken]
        lines.append([f"**{title}**" if name in ROUTES else f"`{title}`", *cells])
    return markdown(["", *(counted(row["tensors"], "tensor") for row in result["rows"])], lines)


def parts_of(result: Result) -> str:
    """The parts of a call, with their share of the whole."""
    apart = result["parts"]
    if not apart:
        return ""
    taken = apart["microseconds"]
    lines = [
        [title, f"{taken[name]:.1f}", f"{taken[name] / taken['whole']:.0%}"]
        for name, title in parts.TITLES.items()
    ]
    return markdown([f"a call on {apart['tensors']:,} tensors", "microseconds", "of the call"], lines)


def against_adamw(result: Result) -> str:
    """The sentence on the step beside torch's fastest optimizer."""
    found = next((row["found"] for row in result["rows"] if row["tensors"] == OF_THE_README), {})
    ours, peer = (found.get(name, {}).get("microseconds") for name in ("route-torch", "adamw"))
    if ours is None or peer is None:
        return ""
    return (
        f"On {OF_THE_README} torch parameters of 8 x 8, where there is next to nothing to compute, a step"
        f" takes {significant(ours)} microseconds, which is {ours / peer:.2f} of what torch's fused AdamW"
        f" takes ({significant(peer)}).\n"
    )


def steps_of(result: Result) -> str:
    """The steps of continuous integration, and what they take together."""
    rows = [[row["step"], CATCHES[row["step"]], f"{row['seconds']:,}"] for row in result["rows"]]
    total = sum(row["seconds"] for row in result["rows"])
    rows.append(["**together**", "", f"**{total:,}**"])
    return markdown(["step", "what it catches", "seconds"], rows, words=2)


def minutes_of(result: Result) -> str:
    """The sentence on the two commands of the README."""
    seconds = {row["step"]: row["seconds"] for row in result["rows"]}
    first, second = (counted(max(1, round(seconds[step] / 60)), "minute") for step in ("demo", "tests"))
    return f"With all that pip downloads and builds the first took {first}, the second {second}.\n"


# The question of each block, its table, and what its picture shows where it has one.
BLOCKS: dict[str, tuple[str, Callable[[Result], str], str | None]] = {
    "peers": (
        "peers",
        lambda result: peers_of(result, "float32"),
        "the step of each library beside this one's",
    ),
    "bfloat16": ("peers", lambda result: peers_of(result, "bfloat16"), None),
    "options": ("peers", options_of, None),
    "floor": ("floor", floor_of, "the step beside its passes in plain loops"),
    "busy": ("busy", busy_of, "the step on a busy machine"),
    "scaling": ("scaling", scaling_of, "the cost of an element as the leaf grows"),
    "accuracy": ("accuracy", accuracy_of, "the worst error of each library"),
    "overhead": ("overhead", overhead_of, "the step of each library on small tensors"),
    "parts": ("overhead", parts_of, None),
    "small-tensors": ("overhead", against_adamw, None),
    "minutes": ("ci-run", minutes_of, None),
    "ci-run": ("ci-run", steps_of, None),
    "ci-full": ("ci-full", steps_of, None),
}


def where(result: Result) -> str:
    """One line on what was measured, and on what."""
    versions = result["machine"]["versions"]
    peers = ", ".join(f"{name} {version}" for name, version in versions.items() if version)
    threads = counted(result["threads"], "thread")
    on = f"{result['machine']['cpu']}, {threads}, {result['machine']['date'][:10]}"
    return f"{on}; {peers}.\n" if result.get("question") not in ("ci-run", "ci-full") else f"{on}.\n"


def block(name: str, document: Path, folder: Path = FOLDER) -> str:
    """The text of a block, with links as they are seen from the document."""
    question, table_of, meaning = BLOCKS[name]
    path = results.newest(question, folder)
    if path is None:
        return ""
    result = results.read(path)
    table = table_of(result)
    if not table:
        return ""
    picture = Path(os.path.relpath(path.with_suffix(".svg"), document.parent)).as_posix()
    image = f"![{meaning}]({picture})\n\n" if meaning else ""
    return f"\n{image}{table}\n{where(result)}\n"


def filled(document: Path, folder: Path = FOLDER) -> str:
    """The document's text with its blocks as the results have them."""
    text = document.read_text(encoding="utf-8")
    return BLOCK.sub(
        lambda found: found["begin"] + block(found["name"], document, folder) + found["end"], text
    )


def main() -> None:
    for document in DOCUMENTS:
        document.write_text(filled(document), encoding="utf-8")
        print(f"written: {document.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
