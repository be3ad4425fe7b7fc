"""Two builds are compared as the rule says: what follows from invented times, and real turns of one build."""

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

import adafactor
import sources
from peers import require

sys.path.append(str(sources.ROOT))  # `benchmarks` is no part of the package: it lies beside it

from benchmarks import builds, compare, ratios, trees
from benchmarks.turns import Stepper, StepperError

INSTALLED = Path(adafactor.__file__).parents[1]
TINY = ["--shapes", "8x4,3", "--threads", "1", "--turn", "0"]


def noisy(median, rounds=20):
    """Times of rounds about a median, a few of them far above it, as of a machine that others use, too."""
    random = np.random.default_rng(7)
    return list(median * (1 + 0.01 * random.standard_normal(rounds)) * np.where(np.arange(rounds) % 9, 1, 3))


@pytest.mark.parametrize(
    ("true_ratio", "verdict"), [(1.0, "same"), (1.015, "same"), (1.05, "slower"), (0.9, "faster")]
)
def test_the_verdict_is_that_of_the_interval(true_ratio, verdict):
    judged = ratios.judge(20 * [1.0], noisy(true_ratio))
    assert judged.lower <= judged.ratio <= judged.upper
    assert judged.lower < true_ratio < judged.upper
    assert judged.verdict == verdict


def test_a_build_is_slower_only_beyond_the_limit():
    old, new = 20 * [1.0], 20 * [1.02]
    assert ratios.judge(old, new) == (1.02, 1.02, 1.02, "same")
    assert ratios.judge(old, new, limit=1.01).verdict == "slower"
    assert ratios.judge(new, old).verdict == "same"


def test_what_disturbs_both_turns_of_a_round_is_not_seen():
    load = np.linspace(1, 5, 20)
    assert ratios.judge(list(load), list(1.03 * load))[:3] == pytest.approx(3 * (1.03,))


def test_the_same_times_give_the_same_interval():
    assert ratios.judge(20 * [1.0], noisy(1.01)) == ratios.judge(20 * [1.0], noisy(1.01))


def test_fewer_than_twenty_rounds_say_nothing(capsys):
    with pytest.raises(ValueError, match="19 rounds, expected at least 20"):
        ratios.judge(19 * [1.0], 19 * [1.0])
    with pytest.raises(SystemExit, match="2"):
        compare.main([str(INSTALLED), str(INSTALLED), "--rounds", "19"])
    assert "argument --rounds: 19, expected at least 20" in capsys.readouterr().err


def test_a_build_is_compared_with_itself(tmp_path, capsys):
    out = tmp_path / "folder" / "result.json"
    # The limit is beyond every disturbance: nothing here judges a time.
    asked = [*TINY, "--dtype", "float16/float32", "--limit", "1e9", "--out", str(out)]
    assert compare.main([str(INSTALLED), str(INSTALLED), *asked]) == 0
    printed = capsys.readouterr()
    assert "[20/20] a round of 1 workload; about" in printed.err
    assert "8x4,3, float16/float32" in printed.out
    found = json.loads(out.read_text(encoding="utf-8"))
    for side in ("OLD", "NEW"):
        assert found[side]["build"]["version"] == adafactor.__version__
        assert found[side]["build"]["num_threads"] == 1
    assert "build" not in found["machine"]
    (row,) = found["rows"]
    assert row["title"] == "8x4,3, float16/float32"
    assert len(row["rounds"]) == 20
    assert row["ratio"] == pytest.approx(np.median([new / old for old, new in row["rounds"]]))
    assert row["milliseconds"]["OLD"] > 0


def invented(monkeypatch, ratio):
    """Rounds in which NEW takes `ratio` times as long; returns the orders that were asked for."""
    orders = []

    def turns(run, case, first, second):
        orders.append((first, second))
        return {first: 1.0, second: 1.0, "NEW": ratio}

    monkeypatch.setattr(compare.Run, "round", turns)
    return orders


@pytest.mark.parametrize(("ratio", "code"), [(1.01, 0), (1.03, 1), (0.5, 0)])
def test_the_exit_code_tells_of_a_slower_build(ratio, code, monkeypatch, capsys):
    orders = invented(monkeypatch, ratio)
    assert compare.main([str(INSTALLED), str(INSTALLED), *TINY]) == code
    assert f"{ratio:.3f} to {ratio:.3f}" in capsys.readouterr().out
    assert orders == 10 * [("OLD", "NEW"), ("NEW", "OLD")]


def test_a_workload_that_breaks_down_leaves_the_others_and_is_no_success(monkeypatch, capsys):
    real = compare.Run.round

    def turns(run, case, first, second):
        return real(run, case, first, second) if case.grads == "float32" else {first: 1.0, second: 1.0}

    monkeypatch.setattr(compare.Run, "round", turns)
    # No step takes the first pair: a gradient of a float64 parameter is float64.
    chosen = ["--dtype", "float64/float32", "--dtype", "float64"]
    assert compare.main([str(INSTALLED), str(INSTALLED), *TINY, *chosen]) == 1
    printed = capsys.readouterr()
    line = next(line for line in printed.out.splitlines() if "float64/float32" in line)
    assert "not measured: OLD, " in line
    assert "TypeError: " in line
    assert printed.err.count("broke down") == 1
    assert " same" in next(line for line in printed.out.splitlines() if "float64/float64" in line)


def test_everything_is_compared_unless_something_is_chosen():
    everything = compare.chosen(compare.parse([str(INSTALLED), str(INSTALLED)]))
    titles = [case.title for case in everything]
    assert len(set(titles)) == len(titles)
    assert {tree.title for tree in trees.WORKLOADS.values()} <= set(titles)
    assert "4096x4096, momentum" in titles
    assert "300 tensors" in titles
    asked = ["--workload", "4096x4096", "--workload", "bfloat16", "--dtype", "float16"]
    (case,) = compare.chosen(compare.parse([str(INSTALLED), str(INSTALLED), *asked]))
    assert case.title == "4096x4096, float16/float16"


@pytest.mark.parametrize("dtype", ["int8", "float32/int8", "float32/", "/float32", ""])
def test_other_dtypes_are_refused(dtype, capsys):
    with pytest.raises(SystemExit, match="2"):
        compare.parse([str(INSTALLED), str(INSTALLED), "--dtype", dtype])
    assert "expected one or two of float32, float64, bfloat16, float16" in capsys.readouterr().err


def test_what_is_no_build_is_named_before_anything_is_built(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(builds, "install", lambda *_: pytest.fail("built"))
    (tmp_path / "adafactor").mkdir()
    for name, said in [
        (str(tmp_path / "nowhere"), "there is no such folder, wheel or git revision"),
        (str(tmp_path), "the folder has no package adafactor, and is no checkout of its sources"),
        ("no-such-revision", "there is no such folder, wheel or git revision"),
        (str(tmp_path / "nowhere.whl"), "there is no such folder, wheel or git revision"),
    ]:
        with pytest.raises(SystemExit, match="2"):
            compare.main([str(sources.ROOT), name])
        assert f"argument NEW: {name}: {said}" in capsys.readouterr().err


def test_a_package_that_is_not_compiled_for_this_python_is_refused(tmp_path, capsys):
    (tmp_path / "adafactor").mkdir()
    (tmp_path / "adafactor/__init__.py").touch()
    assert compare.main([str(tmp_path), str(INSTALLED)]) == 2
    assert f"{tmp_path}: its package has no compiled module for this Python" in capsys.readouterr().err


def test_a_wheel_is_unpacked_once(tmp_path, monkeypatch):
    monkeypatch.setattr(builds, "CACHE", tmp_path / "cache")
    wheel = tmp_path / "adafactor-0.1.0-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path in (INSTALLED / "adafactor").rglob("*"):
            archive.write(path, path.relative_to(INSTALLED))
    folder = builds.find(str(wheel)).folder()
    assert (folder / "adafactor/__init__.py").is_file()
    made = folder.stat().st_ino
    assert builds.find(str(wheel)).folder() == folder
    assert folder.stat().st_ino == made
    wheel.write_bytes(b"no archive")
    with pytest.raises(builds.BuildError, match="this is no wheel"):
        builds.find(str(wheel)).folder()


def repository(folder, monkeypatch):
    """A repository with one commit, in the place of this project's."""
    folder.mkdir()
    (folder / "pyproject.toml").touch()
    for command in ("init", "add .", "-c user.name=n -c user.email=e@x commit -m Begin"):
        subprocess.run(["git", *command.split()], cwd=folder, check=True, capture_output=True)
    monkeypatch.setattr(builds, "ROOT", folder)
    monkeypatch.setattr(builds, "CACHE", folder / "build")


def test_a_revision_is_built_once_and_a_checkout_each_time(tmp_path, monkeypatch, capsys):
    repository(tmp_path / "clone", monkeypatch)
    built = []

    def install(found, folder, said):
        assert (found / "pyproject.toml").is_file()
        built.append(said)
        if not folder.exists():
            folder.mkdir(parents=True)
            (folder / "adafactor").symlink_to(INSTALLED / "adafactor")

    monkeypatch.setattr(builds, "install", install)
    for name in ("HEAD", "HEAD", str(tmp_path / "clone"), str(tmp_path / "clone")):
        assert builds.find(name).folder().is_relative_to(tmp_path / "clone/build")
    assert built == ["HEAD", str(tmp_path / "clone"), str(tmp_path / "clone")]
    assert "HEAD: built before, in " in capsys.readouterr().err


def test_sources_that_cannot_be_built_are_named(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(builds, "CACHE", tmp_path / "cache")
    (tmp_path / "pyproject.toml").write_text("no project", encoding="utf-8")
    assert compare.main([str(tmp_path), str(INSTALLED)]) == 2
    said = capsys.readouterr().err
    assert f"building {tmp_path} with pip into " in said
    assert f"error: {tmp_path}: pip could not build it, exit code " in said


def job(**changed):
    asked = {"folder": str(INSTALLED), "threads": 1, "shapes": [(8, 4)], "contestant": "adafactor"}
    return asked | {"params": "float32", "grads": "float32"} | changed


def test_only_the_package_of_the_folder_is_stepped(tmp_path):
    """Whichever is installed beside the benchmarks, another folder's is what a process imports."""
    copy = tmp_path / "copy"
    copy.mkdir()
    (copy / "numpy.py").write_text("raise ImportError('not this one')", encoding="utf-8")
    (copy / "adafactor").mkdir()
    for path in (INSTALLED / "adafactor").iterdir():
        if path.name != "__init__.py":
            (copy / "adafactor" / path.name).symlink_to(path)
    text = (INSTALLED / "adafactor/__init__.py").read_text(encoding="utf-8")
    (copy / "adafactor/__init__.py").write_text(f"{text}\nprint('said by the copy')", encoding="utf-8")
    with Stepper("copy", job(folder=str(copy))) as stepper, pytest.raises(StepperError) as caught:
        stepper.ready()
    # The compiled module is a link to that of the installed package, which is another build.
    assert "copy: exit code 1: ImportError: " in str(caught.value)
    assert "stands before the package in" in str(caught.value)


def test_a_process_that_ends_says_why():
    with Stepper("OLD, x", job(contestant="nobody")) as stepper:
        with pytest.raises(StepperError, match="OLD, x: exit code 1: KeyError: 'nobody'"):
            stepper.ready()
        with pytest.raises(StepperError, match="OLD, x: exit code 1"):
            stepper.turn(0)


def test_a_process_steps_behind_an_operation_of_torch():
    require("torch")
    with Stepper("x", job(behind_torch=True)) as stepper:
        stepper.ready()
        times = stepper.times(0)
    assert len(times) >= 5
    assert all(0 < each < 100 for each in times)
