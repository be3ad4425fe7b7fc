"""What the benchmarks print: plain tables of what their results hold."""

from benchmarks.results import Result
from benchmarks.rows import Entry


def megabytes(count: int | None) -> str:
    return "-" if count is None else f"{count / 1e6:.1f}"


def of_time(entry: Entry) -> str:
    return (
        f"{entry['milliseconds']:10.3f} ms{entry['nanoseconds_per_element']:9.3f} ns"
        f"{entry['bytes_per_element']:7.1f} B an element{entry['gigabytes_per_second']:7.1f} GB/s"
    )


def of_row(row: Entry) -> list[str]:
    heading = f"{row['title']}, {row['dtype']}: {row['variant']}"
    if "refused" in row:
        lines = ["", heading, f"  refused: {row['refused']}"]
    else:
        peak = megabytes(row["peak_extra_bytes"])
        lines = ["", heading, f"  {of_time(row)}, peak {peak} MB"]
    lines.append(f"  {'':42}{'ms':>10}{'ours/it':>10}{'peak MB':>10}")
    for peer in row["peers"].values():
        if "refused" in peer:
            lines.append(f"  {peer['title']:42}  {peer['refused']}")
            continue
        ratio = f"{peer['ratio']:.3f}" if "ratio" in peer else "-"
        times = f"{peer['milliseconds']:10.3f}{ratio:>10}{megabytes(peer['peak_extra_bytes']):>10}"
        lines.append(f"  {peer['title']:42}{times}")
    return lines


def of_peers(result: Result) -> str:
    lines = [f"{result['machine']['cpu']}, {result['threads']} threads; medians of alternating runs"]
    for row in result["rows"]:
        lines += of_row(row)
    if result["options"]:
        lines += ["", f"{'options, float32':54}{'ms':>10}{'/plain':>10}{'by bytes':>10}{'over them':>11}"]
    for each in result["options"]:
        name = f"{each['workload']}, {each['title']}"
        if "ratio" in each:
            ratios = f"{each['ratio']:10.3f}{each['bytes_ratio']:10.3f}{each['over_bytes']:11.3f}"
            lines.append(f"{name:54}{each['milliseconds']:10.3f}{ratios}")
        else:
            lines.append(f"{name:54}  {each.get('refused', 'not measured')}")
    return "\n".join(lines)
