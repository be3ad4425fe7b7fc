"""The command `python -m adafactor demo`: its options, what it prints, and what may keep it from running."""

import argparse
import importlib
import importlib.util
import math
import sys
from pathlib import Path

import numpy as np

from adafactor.demo.network import make_network
from adafactor.demo.picture import draw
from adafactor.demo.training import load_digits, steps_of, train

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Give a parser the options of the demo."""
    parser.add_argument("--epochs", type=positive_integer, default=20, help="passes over the training images")
    parser.add_argument(
        "--learning-rate",
        type=positive_number,
        default=0.02,
        help="at the first step; from there it falls to 0 along half a cosine",
    )
    parser.add_argument(
        "--framework", choices=["numpy", "torch"], default="numpy", help="what the network is written in"
    )
    parser.add_argument("--out", type=Path, default="adafactor-demo.png", help="the picture to write, a PNG")
    parser.add_argument("--seed", type=seed, default=0, help="of the first weights and of the shuffling")


def positive_integer(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text}, expected at least 1")
    return value


def seed(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text}, expected at least 0")
    return value


def positive_number(text: str) -> float:
    value = float(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text}, expected a finite number above 0")
    return value


def obstacle(out: Path, framework: str = "numpy") -> str | None:
    """Return in one sentence what will keep the demo from coming to its end, if anything will."""
    if importlib.util.find_spec(framework) is None:
        return f"--framework {framework} needs it: pip install {framework}"
    needed = {"sklearn": "scikit-learn", "tqdm": "tqdm", "matplotlib": "matplotlib"}
    missing = [name for module, name in needed.items() if importlib.util.find_spec(module) is None]
    if missing:
        return f'the demo needs {" and ".join(missing)}: pip install "adafactor[demo]"'
    try:
        new = not out.exists()
        out.open("ab").close()
        if new:
            out.unlink()
    except OSError as error:
        return f"--out {out} cannot be written: {error.strerror}"
    return None


def run(options: argparse.Namespace) -> int:
    """Train, print and draw; return the exit code: 0, or 1 if it diverged, 2 if it could not begin."""
    problem = obstacle(options.out, options.framework)
    if problem:
        print(f"adafactor demo: {problem}", file=sys.stderr)
        return 2
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped,unused-ignore]  # with scikit-learn

    digits = load_digits()
    generator = np.random.default_rng(options.seed)
    parameters = make_network(generator)
    # With torch it imports torch.
    module = {"numpy": "network", "torch": "network_of_torch"}[options.framework]
    make = importlib.import_module(f"adafactor.demo.{module}").Network
    network = make(parameters, options.learning_rate, steps_of(digits, options.epochs))
    try:
        # For matrices this small, threads on busy processors wait for each other more than they work.
        with threadpool_limits(1):
            history = train(network, digits, epochs=options.epochs, generator=generator)
    except FloatingPointError as error:
        print(
            f"adafactor demo: the training diverged, try a smaller --learning-rate: {error}", file=sys.stderr
        )
        return 1

    accuracy, images = history.test_accuracy[-1], len(digits.test_labels)
    count = sum(array.size for layer in parameters.values() for array in layer.values())
    adam = 2 * 4 * count  # bytes: two float32 moments for each parameter
    ratio = adam / history.state_nbytes
    print(f"test accuracy  {accuracy:.4f} on {images} held-out digits")
    print(f"parameters     {count:,}, float32")
    print(f"state          {history.state_nbytes:,} bytes")
    print(f"state of Adam  {adam:,} bytes, {ratio:.0f} times as many")
    title = f"Adafactor on handwritten digits: {accuracy:.1%} recognised with 1/{ratio:.0f} of Adam's state"
    draw(history, title, options.out)
    print(f"picture        {options.out}")
    return 0
