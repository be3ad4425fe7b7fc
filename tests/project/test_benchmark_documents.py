"""What the benchmarks found and what continuous integration took gets into the documents as it is."""

import itertools
import json
import re
import sys

import pytest

import sources

sys.path.append(str(sources.ROOT))  # `benchmarks` is no part of the package: it lies beside it

from benchmarks import documents, results, steps
from benchmarks.contestants import OURS


def test_the_sentence_of_the_readme_has_the_ratio_of_two_times():
    def row(count, ours, adamw):
        return {"tensors": count, "found": {"route-torch": ours, "adamw": adamw}}

    rows = [row(30, {"microseconds": 9.0}, {"microseconds": 90.0})]
    assert documents.against_adamw({"rows": rows}) == ""
    rows.append(row(300, {"microseconds": 110.0}, {"refused": "broke down"}))
    assert documents.against_adamw({"rows": rows}) == ""
    rows[1]["found"]["adamw"] = {"microseconds": 1000.0}
    assert "takes 110 microseconds, which is 0.11 of what" in documents.against_adamw({"rows": rows})


@pytest.mark.parametrize("document", documents.DOCUMENTS, ids=lambda path: path.name)
def test_a_document_shows_what_the_results_hold(document):
    """`python -m benchmarks.documents` writes what is compared here."""
    text = document.read_text(encoding="utf-8")
    assert documents.BLOCK.search(text)
    assert documents.filled(document) == text


def test_a_block_is_written_from_the_youngest_result(tmp_path):
    def row(milliseconds):
        adamw = {"title": "AdamW", "milliseconds": 6.0, "ratio": milliseconds / 6, "peak_extra_bytes": 2e6}
        numbers = {"milliseconds": milliseconds, "peak_extra_bytes": 1e5}
        names = {"title": "4096x4096", "dtype": "float32", "contestant": OURS}
        return names | numbers | {"peers": {"adamw": adamw}}

    for name, date, milliseconds in [("a", "2026-01-02", 3.0), ("b", "2026-01-01", 4.0)]:
        on = {"cpu": "A CPU", "date": date, "versions": {"numpy": "2.0", "torch": None}}
        made = {"machine": on, "threads": 2, "rows": [row(milliseconds)], "options": []}
        (tmp_path / f"peers-{name}.json").write_text(json.dumps(made), encoding="utf-8")
    document = tmp_path / "page.md"
    document.write_text("x\n<!-- benchmarks: peers -->\nold\n<!-- benchmarks end -->\ny\n", encoding="utf-8")
    assert documents.filled(document, tmp_path).splitlines() == [
        "x",
        "<!-- benchmarks: peers -->",
        "",
        "![the step of each library beside this one's](peers-a.svg)",
        "",
        "|  | 4096x4096 | peak MB, 4096x4096 |",
        "| --- | ---: | ---: |",
        "| **adafactor**, ms | **3** | 0.1 |",
        "| `torch.optim.AdamW, fused` | 2 | 2.0 |",
        "",
        "A CPU, 2 threads, 2026-01-02; numpy 2.0.",
        "",
        "<!-- benchmarks end -->",
        "y",
    ]


@pytest.mark.parametrize(
    ("cpu", "name"),
    [
        ("AMD EPYC(TM) 9", "amd-epyc-9"),
        ("AMD EPYC", "amd-epyc"),
        ("Intel(R) Xeon(R) Processor", "intel-xeon"),
        ("Intel(R) Xeon(R) Gold 6454S CPU @ 2.20GHz", "intel-xeon-gold-6454s"),
        ("Neoverse-N1", "neoverse-n1"),
    ],
)
def test_a_result_is_named_after_its_question_its_processor_and_its_threads(cpu, name):
    made = results.begin("peers", threads=2)
    made["machine"]["cpu"] = cpu
    assert results.default_path(made).name == f"peers-{name}-2-threads.json"


def test_what_continuous_integration_took_gets_into_the_documents(tmp_path):
    lines = tmp_path / "steps.tsv"
    lines.write_text("demo\t119\tpassed\ntests\t1001\tpassed\n", encoding="utf-8")
    steps.main(["run", str(lines), "--out", str(tmp_path)])
    page = tmp_path / "page.md"
    blocks = [f"<!-- benchmarks: {name} -->\n<!-- benchmarks end -->\n" for name in ("minutes", "ci-run")]
    page.write_text("".join(blocks), encoding="utf-8")
    text = documents.filled(page, tmp_path)
    assert "the first took 2 minutes, the second 17 minutes.\n" in text
    assert f"| tests | {steps.CATCHES['tests']} | 1,001 |\n| **together** |  | **1,120** |\n" in text


def test_every_step_of_continuous_integration_is_described():
    scripts = "".join(
        (sources.ROOT / ".ci" / name).read_text("utf-8") for name in ("run", "full", "steps.sh")
    )
    named = [name.strip('"') for name in re.findall(r'^ *attempt ("[^"]+"|\w+)', scripts, re.MULTILINE)]
    kinds = itertools.product(("oldest", "newest"), ("sanitize", "sanitize-threads"))
    filled = [
        name.replace("$versions", versions).replace("$preset", preset)
        for versions, preset in kinds
        for name in named
    ]
    assert set(filled) == set(steps.CATCHES)
