"""What follows from the times and peaks that workers measured: ratios, and the cost of an option."""

from typing import Any

from benchmarks.contestants import CONTESTANTS, OURS
from benchmarks.traffic import Streams, bytes_moved
from benchmarks.trees import DTYPES, Workload

Entry = dict[str, Any]


def bytes_per_element(name: str, workload: Workload, dtype: str, cache_bytes: int) -> float | None:
    """Bytes that a step has to move, on the average of its calls; None where it cannot be told."""
    contestant = CONTESTANTS[name]
    if contestant.streams is None:
        plain = contestant.bytes_per_float32
        return None if plain is None else plain * DTYPES[dtype] / 4
    streams = contestant.streams
    if dtype != "float32":
        streams = Streams(parameter=DTYPES[dtype], gradient=DTYPES[dtype], looks_first=streams.looks_first)
    updating = bytes_moved(workload.shapes, cache_bytes, streams) / workload.elements
    return (updating + streams.of_accumulation() * (contestant.calls - 1)) / contestant.calls


def entry(name: str, workload: Workload, dtype: str, answer: Entry, cache_bytes: int) -> Entry:
    """A contestant on a workload: its time and bytes, or why it was not measured."""
    made: Entry = {"title": CONTESTANTS[name].title}
    if name in answer["refused"]:
        return made | {"refused": answer["refused"][name]}
    seconds = answer["seconds"][name]
    made |= {"milliseconds": 1e3 * seconds, "nanoseconds_per_element": 1e9 * seconds / workload.elements}
    moved = bytes_per_element(name, workload, dtype, cache_bytes)
    if moved is not None:
        made |= {
            "bytes_per_element": moved,
            "gigabytes_per_second": 1e-9 * moved * workload.elements / seconds,
        }
    return made


def row(
    ours: str,
    workload: Workload,
    dtype: str,
    timed: list[tuple[list[str], Entry]],
    peaks: dict[str, int | None],
    cache_bytes: int,
) -> Entry:
    """A variant of this project on a workload, and each peer with the ratio that was taken in its process.

    `timed` has the peers of each process and what it found; this project's own time is the first's.
    """
    made = {"title": workload.title, "dtype": dtype, "contestant": ours}
    made |= {"leaves": len(workload.shapes), "elements": workload.elements}
    made |= entry(ours, workload, dtype, timed[0][1], cache_bytes) | {"title": workload.title}
    made |= {"variant": CONTESTANTS[ours].title, "peak_extra_bytes": peaks.get(ours), "peers": {}}
    for names, answer in timed:
        for name in names:
            peer = entry(name, workload, dtype, answer, cache_bytes)
            if "milliseconds" in peer:
                peer["peak_extra_bytes"] = peaks.get(name)
                if ours in answer["seconds"]:
                    peer["our_milliseconds"] = 1e3 * answer["seconds"][ours]
                    peer["ratio"] = peer["our_milliseconds"] / peer["milliseconds"]
            made["peers"][name] = peer
    return made


def option_rows(names: list[str], workload: Workload, answer: Entry, cache_bytes: int) -> list[Entry]:
    """Each option beside the plain step: `over_bytes` is how much more it costs than its bytes would."""
    made = []
    for name in names:
        each = entry(name, workload, "float32", answer, cache_bytes) | {"workload": workload.title}
        if "milliseconds" in each and OURS in answer["seconds"]:
            plain = entry(OURS, workload, "float32", answer, cache_bytes)
            each["plain_milliseconds"] = plain["milliseconds"]
            each["ratio"] = each["milliseconds"] / plain["milliseconds"]
            each["bytes_ratio"] = each["bytes_per_element"] / plain["bytes_per_element"]
            each["over_bytes"] = each["ratio"] / each["bytes_ratio"]
        made.append(each)
    return made
