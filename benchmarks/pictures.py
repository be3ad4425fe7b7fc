"""The picture of each benchmark, as SVG: rows of dots, and lines for scaling."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from benchmarks.contestants import CONTESTANTS, OURS, PEERS, PROPAGATE, ROUTES
from benchmarks.results import Result
from benchmarks.svg import Drawing

LABELS, PANEL, ROW, HEAD, PER_LINE = 262, 190, 19, 62, 4  # points, and panels beside each other


class Mark(NamedTuple):
    """A number on a panel's axis, and what is written beside it; `kind` is a class of the style."""

    value: float
    text: str
    kind: str = "first"


class Panel(NamedTuple):
    """Some of a picture's rows under a common title; a mark that is None was wanted and could not be had."""

    title: str
    subtitle: str
    marks: dict[str, Mark | None]


def significant(number: float) -> str:
    """Two or three digits that count, without an exponent."""
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"


def counted(number: int, thing: str) -> str:
    return f"{number:,} {thing}{'s' if number > 1 else ''}"


class Dots:
    """Panels of the same rows over one logarithmic axis, with a stem from `origin` to each dot."""

    def __init__(
        self, titles: tuple[str, str], labels: Sequence[str], panels: list[Panel], origin: float
    ) -> None:
        values = [
            origin,
            *(mark.value for panel in panels for mark in panel.marks.values() if mark and mark.value > 0),
        ]
        self.low, self.high = math.log10(min(values) / 1.15), math.log10(max(values) * 1.15)
        self.labels, self.panels, self.origin = labels, panels, origin
        self.lines = -(-len(panels) // PER_LINE)
        self.tall = HEAD + ROW * len(labels) + 24
        across = min(len(panels), PER_LINE)
        self.sheet = Drawing(max(LABELS + PANEL * across + 16, 660), 56 + self.tall * self.lines, titles[0])
        self.sheet.text(16, 27, titles[0], "title")
        self.sheet.text(16, 46, titles[1], "faint")

    def at(self, value: float) -> float:
        """Where a number is on a panel's axis; what is below lies at its beginning."""
        position = max(math.log10(value), self.low) if value > 0 else self.low
        return 8 + (PANEL - 92) * (position - self.low) / (self.high - self.low)

    def draw(self) -> str:
        for line in range(self.lines):
            top = 56 + line * self.tall
            for row, label in enumerate(self.labels):
                self.sheet.text(LABELS - 10, top + HEAD + ROW * row + 4, label, anchor="end")
            for column, panel in enumerate(self.panels[line * PER_LINE : (line + 1) * PER_LINE]):
                self.draw_panel(panel, LABELS + column * PANEL, top)
        return str(self.sheet)

    def draw_panel(self, panel: Panel, left: float, top: float) -> None:
        bottom = top + HEAD + ROW * (len(self.labels) - 1) + 10
        self.sheet.text(left, top + 22, panel.title, "strong")
        self.sheet.text(left, top + 38, panel.subtitle, "small faint")
        powers = [10.0**power for power in range(math.ceil(self.low), math.floor(self.high) + 1)]
        labelled = []  # no two so near that their words would touch
        for tick in dict.fromkeys([self.origin, *powers]):
            x = left + self.at(tick)
            self.sheet.line((x, top + HEAD - 12), (x, bottom), "axis" if tick == self.origin else "")
            if all(abs(x - other) > 24 for other in labelled):
                self.sheet.text(x, bottom + 13, f"{tick:g}", "small faint", "middle")
                labelled.append(x)
        for row, label in enumerate(self.labels):
            y = top + HEAD + ROW * row
            mark = panel.marks.get(label)
            if mark is None and label in panel.marks:
                self.sheet.text(left + self.at(self.origin) + 8, y + 4, "not measured", "small faint")
            if mark is None:
                continue
            x, start = left + self.at(mark.value), left + self.at(self.origin)
            self.sheet.line((start, y), (x, y), mark.kind)
            self.sheet.dot(x, y, mark.kind)
            self.sheet.text(max(x, start) + 8, y + 4, mark.text, "small")


def of_peers(result: Result) -> str:
    """For each workload how many times as long as this project's step each peer's takes."""
    dtype = result["rows"][0]["dtype"] if result["rows"] else "float32"
    rows = [row for row in result["rows"] if row["dtype"] == dtype and "milliseconds" in row]
    names = [name for name in PEERS if any(name in row["peers"] for row in rows)]
    variants = {row["title"]: row for row in rows if row["contestant"] == PROPAGATE}
    panels = []
    for row in (row for row in rows if row["contestant"] == OURS):
        marks: dict[str, Mark | None] = {}
        if row["title"] in variants:
            times = variants[row["title"]]["milliseconds"] / row["milliseconds"]
            marks[CONTESTANTS[PROPAGATE].title] = Mark(times, significant(times))
        for name in names:
            ratio = row["peers"].get(name, {}).get("ratio")
            kind = "second" if PEERS[name].bytes_per_float32 else "first"
            marks[PEERS[name].title] = Mark(1 / ratio, significant(1 / ratio), kind) if ratio else None
        panels.append(Panel(row["title"], f"{significant(row['milliseconds'])} ms", marks))
    labels = [CONTESTANTS[PROPAGATE].title] if variants else []
    titles = (
        "Times as long as adafactor's step",
        f"{dtype}, {result['threads']} threads, {result['machine']['cpu']};"
        " blue: Adafactor, orange: other optimizers",
    )
    return Dots(titles, [*labels, *(PEERS[name].title for name in names)], panels, 1).draw()


def of_accuracy(result: Result) -> str:
    """For each shape the worst error of each library, in units of float32."""
    panels: list[Panel] = []
    labels: dict[str, None] = {}
    for row in result["rows"]:
        marks: dict[str, Mark | None] = {}
        for name, found in row["found"].items():
            title = CONTESTANTS[name].title
            text = f"{significant(found['max_units'])}; {found['correctly_rounded']:.1%}"
            marks[title] = Mark(found["max_units"], text, "second" if name == OURS else "first")
            labels[title] = None
        panels.append(Panel(row["title"], "worst error; correctly rounded", marks))
    titles = (
        "Worst error of a parameter after one step",
        "in units of float32's spacing, against the same step in float64, where half a unit is one rounding",
    )
    return Dots(titles, list(labels), panels, 0.5).draw()


def of_overhead(result: Result) -> str:
    """For each number of tensors the microseconds of each contestant's step."""
    names, panels = result["names"], []
    for row in result["rows"]:
        marks: dict[str, Mark | None] = {}
        for name in names:
            taken = row["found"][name].get("microseconds")
            kind = "second" if name in ROUTES else "first"
            marks[CONTESTANTS[name].title] = Mark(taken, significant(taken), kind) if taken else None
        panels.append(Panel(counted(row["tensors"], "tensor"), "microseconds a step", marks))
    taken = [mark.value for panel in panels for mark in panel.marks.values() if mark]
    titles = (
        "Time of a step on tensors of 8 x 8",
        f"float32, {counted(result['threads'], 'thread')}, {result['machine']['cpu']};"
        " orange: adafactor, on the arrays of each library",
    )
    labels = [CONTESTANTS[name].title for name in names]
    return Dots(titles, labels, panels, 10.0 ** math.floor(math.log10(min(taken, default=1)))).draw()


def of_scaling(result: Result) -> str:
    """Nanoseconds an element over elements, both logarithmic, a line for each number of threads."""
    width, height, left, right, top, bottom = 720, 380, 64, 96, 70, 48
    rows = result["rows"]
    sheet = Drawing(width, height, "Cost of an element as the leaf grows")
    sheet.text(16, 27, "Cost of an element as the leaf grows", "title")
    sheet.text(16, 46, f"nanoseconds, one float32 matrix, {result['machine']['cpu']}", "faint")
    last = max(1.0, *(math.log2(row["elements"]) for row in rows))
    costs = [math.log10(row["nanoseconds_per_element"]) for row in rows]
    low, high = math.floor(min(costs)), math.ceil(max(costs) + 1e-9)

    def at(elements: float, cost: float) -> tuple[float, float]:
        x = left + (width - left - right) * math.log2(elements) / last
        return x, height - bottom - (height - top - bottom) * (math.log10(cost) - low) / (high - low)

    for power in range(low, high + 1):
        start, end = at(1, 10.0**power), at(2**last, 10.0**power)
        sheet.line(start, end, "axis" if power == low else "")
        sheet.text(left - 8, start[1] + 4, f"{10.0**power:,g}", "small faint", "end")
    for power in range(0, math.floor(last) + 1, 5):
        number = ["1", "32", "1 K", "32 K", "1 M", "32 M", "1 G"][power // 5]
        sheet.text(at(2**power, 1)[0], height - bottom + 18, number, "small faint", "middle")
    sheet.text((left + width - right) / 2, height - 10, "elements", "small faint", "middle")
    for kind, threads in zip(("first", "second"), result["thread_counts"], strict=False):
        points = [
            at(row["elements"], row["nanoseconds_per_element"]) for row in rows if row["threads"] == threads
        ]
        sheet.path(points, kind)
        for point in points:
            sheet.dot(*point, kind)
        words = counted(threads, "thread")
        sheet.text(points[-1][0] + 10, points[-1][1] + (0 if kind == "first" else 14), words, kind)
    return str(sheet)


def of_floor(result: Result) -> str:
    """For each number of threads the time of a step over that of the plain loops."""
    thread_counts = sorted({row["threads"] for row in result["rows"]})
    panels = []
    for threads in thread_counts:
        marks: dict[str, Mark | None] = {
            row["title"]: Mark(1 / row["share"], f"{1 / row['share']:.2f}; {row['share']:.0%}")
            for row in result["rows"]
            if row["threads"] == threads
        }
        panels.append(Panel(counted(threads, "thread"), "times as long; share of the floor", marks))
    titles = (
        "A step beside the floor of the machine",
        f"how many times as long as its passes in plain loops, {result['machine']['cpu']}",
    )
    return Dots(titles, list(dict.fromkeys(row["title"] for row in result["rows"])), panels, 1).draw()


def of_busy(result: Result) -> str:
    """For each situation the median of each contestant's step, and what nine of ten stay below."""
    panels, labels = [], {}
    for row in result["rows"]:
        marks: dict[str, Mark | None] = {}
        for title, found in row["found"].items():
            words = f"{significant(found['median'])}; {significant(found['p90'])}"
            marks[title] = Mark(found["median"], words, "second" if "AdamW" in title else "first")
            labels[title] = None
        panels.append(Panel(row["title"], row["situation"], marks))
    titles = (
        "A step on a busy machine",
        f"milliseconds, the median and what nine of ten steps stay below, {result['machine']['cpu']}",
    )
    values = [mark.value for panel in panels for mark in panel.marks.values() if mark]
    return Dots(titles, list(labels), panels, 10.0 ** math.floor(math.log10(min(values)))).draw()
