"""The demo as its user meets it: what it prints and draws, how it fails, and that its network is right."""

import importlib.util
import re
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

import adafactor
import peers
from adafactor import __main__ as command_line
from adafactor.demo import command, network, picture, training

LEAVES = [f"layer_{number}/{kind}" for number in (1, 2, 3) for kind in ("weight", "bias")]


def run_module(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "-m", "adafactor", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)


def png_size(path: Path) -> tuple[int, int]:
    """Width and height from the header of a PNG."""
    content = path.read_bytes()
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    assert content[12:16] == b"IHDR"
    return struct.unpack(">II", content[16:24])


# What it prints and draws


@pytest.fixture(scope="module")
def default_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[subprocess.CompletedProcess[str], Path]:
    """The demo as the README has it, with no option at all, in an empty folder."""
    folder = tmp_path_factory.mktemp("demo")
    result = run_module("demo", folder=folder)
    assert result.returncode == 0, result.stderr
    return result, folder


def test_the_default_run_recognises_more_than_95_percent(default_run) -> None:
    found = re.search(
        r"^test accuracy +(0\.\d{4}) on 360 held-out digits$", default_run[0].stdout, re.MULTILINE
    )
    assert found
    assert float(found[1]) > 0.95


def test_the_state_is_printed_beside_that_of_adam(default_run) -> None:
    output = default_run[0].stdout
    # 64 x 512, 512 x 256 and 256 x 10 weights and their biases.
    parameters = 64 * 512 + 512 + 512 * 256 + 256 + 256 * 10 + 10
    assert re.search(rf"^parameters +{parameters:,}, float32$", output, re.MULTILINE)
    assert re.search(rf"^state of Adam +{2 * 4 * parameters:,} bytes", output, re.MULTILINE)
    found = re.search(r"^state +([\d,]+) bytes$", output, re.MULTILINE)
    assert found
    state = int(found[1].replace(",", ""))
    # A row and a column of each weight and one number for each bias, 4 bytes each; a little for the counters.
    moments = 4 * ((64 + 512) + 512 + (512 + 256) + 256 + (256 + 10) + 10)
    assert moments <= state <= moments + 1024
    assert f", {2 * 4 * parameters / state:.0f} times as many\n" in output


def test_the_bar_has_loss_and_accuracy_and_is_brief_in_a_log(default_run) -> None:
    bar = default_run[0].stderr
    assert re.search(r"440/440 .*accuracy=9\d\.\d%, loss=0\.\d{4}", bar)
    assert bar.count("\r") < 20  # a terminal gets ten a second
    assert "Warning" not in bar


def test_the_picture_is_a_png_in_which_every_leaf_has_its_colour(default_run) -> None:
    from matplotlib.image import imread

    result, folder = default_run
    assert [path.name for path in folder.iterdir()] == ["adafactor-demo.png"]
    assert re.search(r"^picture +adafactor-demo\.png$", result.stdout, re.MULTILINE)
    assert png_size(folder / "adafactor-demo.png") == (11 * 150, 8.5 * 150)
    pixels = np.round(255 * imread(folder / "adafactor-demo.png")[..., :3]).astype(int)
    for colour in picture.COLOURS:
        rgb = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
        assert (pixels == rgb).all(axis=-1).sum() > 1000, f"{colour} is hardly there"


@pytest.mark.parametrize("epochs", [1, 2])
def test_options_are_obeyed(epochs: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "picture.of.it"
    arguments = ["demo", "--epochs", str(epochs), "--learning-rate", "0.01", "--seed", "7", "--out", str(out)]
    assert command_line.main(arguments) == 0
    captured = capsys.readouterr()
    assert f"{22 * epochs}/{22 * epochs}" in captured.err
    assert str(out) in captured.out
    assert png_size(out)[0] == 1650


def train(epochs: int, seed: int, cls: type[training.Network] = network.Network) -> training.History:
    generator = np.random.default_rng(seed)
    parameters, digits = network.make_network(generator), training.load_digits()
    trained = cls(parameters, 0.02, training.steps_of(digits, epochs))
    with threadpool_limits(1):  # as the command does
        return training.train(trained, digits, epochs=epochs, generator=generator)


def test_the_same_seed_gives_the_same_numbers() -> None:
    first, again, other = train(1, seed=5), train(1, seed=5), train(1, seed=6)
    for name in ("loss", "update_rms", "clip_factor", "train_accuracy", "test_accuracy"):
        np.testing.assert_array_equal(getattr(first, name), getattr(again, name))
    assert not np.array_equal(first.loss, other.loss)


def test_the_network_of_torch_learns_as_the_one_of_numpy() -> None:
    peers.require("torch")
    from adafactor.demo import network_of_torch

    first, other = train(2, seed=0), train(2, seed=0, cls=network_of_torch.Network)
    assert first.paths == other.paths == tuple(LEAVES)
    # The rules differ in how they keep the second moment above zero.
    np.testing.assert_allclose(first.loss[:10], other.loss[:10], rtol=1e-2)
    assert abs(first.test_accuracy[-1] - other.test_accuracy[-1]) < 0.03
    # torch's state has a count for each parameter.
    assert other.state_nbytes == first.state_nbytes + 4 * len(LEAVES)


def test_the_command_trains_with_torch(tmp_path: Path) -> None:
    peers.require("torch")
    result = run_module("demo", "--framework", "torch", "--epochs", "1", folder=tmp_path)
    assert result.returncode == 0, result.stderr
    assert re.search(r"^test accuracy +0\.[89]\d+", result.stdout, re.MULTILINE), result.stdout
    assert png_size(tmp_path / "adafactor-demo.png")[0] == 1650


def test_the_history_holds_what_the_reports_said() -> None:
    history = train(1, seed=0)
    assert list(history.paths) == LEAVES
    assert history.loss.shape == (22,)
    assert history.update_rms.shape == history.clip_factor.shape == (22, 6)
    assert history.loss[-5:].mean() < history.loss[:5].mean() / 2
    assert history.clip_factor.min() < 1  # else the picture has nothing to show
    # 1 / max(1, rms(U)), from sums in float32.
    np.testing.assert_allclose(history.clip_factor, 1 / np.maximum(1, history.update_rms), rtol=1e-5)


def test_a_training_that_stands_still_can_be_drawn(tmp_path: Path) -> None:
    epochs, steps = 3, 66
    history = training.History(
        paths=tuple(LEAVES),
        loss=np.full(steps, 2.3),
        update_rms=np.zeros((steps, 6)),
        clip_factor=np.ones((steps, 6)),
        train_accuracy=np.full(epochs, 0.1),
        test_accuracy=np.full(epochs, 0.1),
        state_nbytes=9552,
    )
    picture.draw(history, "nothing moves", tmp_path / "still.png")
    assert png_size(tmp_path / "still.png")[0] == 1650


# The network


def test_the_digits_are_split_evenly_and_scaled() -> None:
    digits = training.load_digits()
    assert digits.train_images.shape == (1437, 64)
    assert digits.test_images.shape == (360, 64)
    assert digits.train_images.dtype == digits.test_images.dtype == np.float32
    assert (digits.train_images.min(), digits.train_images.max()) == (0, 1)
    assert set(np.bincount(digits.test_labels)) <= {35, 36, 37}


def loss_of(parameters: network.Parameters, images: network.Array, labels: network.Array) -> float:
    return network.cross_entropy(network.forward(parameters, images)[-1], labels)[0]


def test_gradients_are_the_slopes_of_the_loss() -> None:
    generator = np.random.default_rng(11)
    parameters = network.make_network(generator, np.float64)
    for layer in parameters.values():
        layer["bias"] += generator.normal(0, 0.1, layer["bias"].shape)
    images, labels = generator.uniform(0, 1, (20, 64)), generator.integers(0, 10, 20)
    activations = network.forward(parameters, images)
    gradients = network.backward(parameters, activations, network.cross_entropy(activations[-1], labels)[1])

    width = 1e-5
    for name, layer in parameters.items():
        for kind, array in layer.items():
            gradient = gradients[name][kind]
            assert gradient.shape == array.shape
            assert gradient.dtype == np.float64
            largest = np.argsort(np.abs(gradient), axis=None)[-5:]
            drawn = generator.integers(0, array.size, 5)
            for place in zip(*np.unravel_index([*largest, *drawn], array.shape), strict=True):
                value, losses = array[place], []
                for shifted in (value + width, value - width):
                    array[place] = shifted
                    losses.append(loss_of(parameters, images, labels))
                array[place] = value
                slope = (losses[0] - losses[1]) / (2 * width)
                # The error of the difference: rounding 1e-16 / width, and width^2 times the third derivative.
                assert slope == pytest.approx(gradient[place], rel=1e-6, abs=1e-9), (
                    f"{name}/{kind} at {place}"
                )


def test_scores_of_any_size_give_a_finite_loss() -> None:
    loss, error = network.cross_entropy(np.array([[1e4, 0, -1e4], [-1e4, 0, 1e4]]), np.array([0, 0]))
    assert loss == 1e4
    np.testing.assert_allclose(error, [[0, 0, 0], [-0.5, 0, 0.5]])


# How it fails


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Run the demo, which must refuse before it loads any data, and return the one sentence it says."""
    assert command_line.main(["demo", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("adafactor demo: ")
    assert captured.err.count("\n") == 1
    return captured.err


@pytest.fixture
def no_training(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        pytest.fail("the demo went on although it cannot come to its end")

    monkeypatch.setattr(command, "load_digits", fail)


@pytest.mark.usefixtures("no_training")
@pytest.mark.parametrize(
    ("module", "package"), [("sklearn", "scikit-learn"), ("tqdm", "tqdm"), ("matplotlib", "matplotlib")]
)
def test_a_missing_package_is_named_with_the_command_that_brings_it(
    module: str,
    package: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == module else find(name))
    message = refused(capsys, "--out", str(tmp_path / "a.png"))
    assert message == f'adafactor demo: the demo needs {package}: pip install "adafactor[demo]"\n'


@pytest.mark.usefixtures("no_training")
def test_a_picture_that_cannot_be_written_is_refused_before_the_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for out in (tmp_path, tmp_path / "missing" / "a.png"):
        message = refused(capsys, "--out", str(out))
        assert f"--out {out} cannot be written: " in message
    assert list(tmp_path.iterdir()) == []


def test_the_check_of_the_picture_leaves_files_as_they_are(tmp_path: Path) -> None:
    there, absent = tmp_path / "there.png", tmp_path / "absent.png"
    there.write_bytes(b"old")
    assert command.obstacle(there) is None
    assert command.obstacle(absent) is None
    assert there.read_bytes() == b"old"
    assert not absent.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--epochs", "0"], "--epochs: 0, expected at least 1"),
        (["--epochs", "two"], "--epochs: invalid"),
        (["--learning-rate", "0"], "--learning-rate: 0, expected a finite number above 0"),
        (["--learning-rate", "nan"], "--learning-rate: nan, expected a finite number above 0"),
        (["--learning-rate", "inf"], "--learning-rate: inf, expected a finite number above 0"),
        (["--seed", "-1"], "--seed: -1, expected at least 0"),
        (["--size", "3"], "unrecognized arguments: --size 3"),
    ],
)
def test_a_bad_option_is_refused(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        command_line.main(["demo", *arguments])
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore:(overflow|invalid value) encountered:RuntimeWarning")
def test_a_training_that_diverges_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "a.png"
    assert command_line.main(["demo", "--epochs", "1", "--learning-rate", "1e30", "--out", str(out)]) == 1
    captured = capsys.readouterr()
    assert "adafactor demo: the training diverged, try a smaller --learning-rate: " in captured.err
    assert not out.exists()


# The command line


def test_importing_the_demo_imports_nothing_that_the_library_does_not_need(tmp_path: Path) -> None:
    code = (
        "import sys, adafactor.__main__, adafactor.demo.command;"
        "print([name for name in ('matplotlib', 'sklearn', 'scipy', 'tqdm') if name in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (result.stdout, result.stderr) == ("[]\n", "")


def test_info_prints_every_entry_of_the_build(tmp_path: Path) -> None:
    result = run_module("info", folder=tmp_path)
    assert (result.returncode, result.stderr) == (0, "")
    printed = dict(line.split(maxsplit=1) for line in result.stdout.splitlines())
    assert list(printed) == list(adafactor.build_info())
    assert printed["version"] == adafactor.build_info()["version"]


def test_without_a_command_the_help_is_printed(tmp_path: Path) -> None:
    result = run_module(folder=tmp_path)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith("usage: python -m adafactor")
    assert ">>>" not in result.stdout
    assert "demo" in result.stdout
    assert "info" in result.stdout


def test_the_help_of_the_demo_shows_the_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        command_line.main(["demo", "--help"])
    assert stop.value.code == 0
    words = capsys.readouterr().out.split()
    text = " ".join(words).replace("- ", "-")
    for option, default in {
        "epochs": 20,
        "learning-rate": 0.02,
        "out": "adafactor-demo.png",
        "seed": 0,
    }.items():
        assert re.search(rf"--{option} .*?\(default: {re.escape(str(default))}\)", text), option


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        command_line.main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out == f"adafactor {adafactor.build_info()['version']}\n"
