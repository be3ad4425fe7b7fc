"""The steps of continuous integration: what each one catches, and how long a run of them took.

`python -m benchmarks.steps run FILE`, or `full`, keeps the seconds that .ci/run, or .ci/full, left in FILE,
with what they were measured on, in build/steps. Copied from there into benchmarks/results they are what
`python -m benchmarks.documents` writes into the documents.
"""

import argparse
import json
from pathlib import Path

from benchmarks import machine, results

OUT = Path(__file__).resolve().parents[1] / "build/steps"

CATCHES = {
    "compilers and emulators": "nothing: it brings them",
    "demo": "the README's first command fails in a fresh environment, or its build warns",
    "tests": "`pytest` fails in a fresh environment, or its build warns",
    "tests, all": "`pytest --full` fails there",
    "wheel": "no wheel for other Linux systems can be made",
    "what the wheel requires": "pip does not find what the wheel asks for",
    "consumer of the wheel": "another project cannot build with the wheel alone",
    "the wheel beside other libraries": "other bits, or limits not obeyed, beside torch and scikit-learn",
    "timm": "nothing: it brings it",
    "presets beside timm": "numbers that are not those of timm's two optimizers",
    "docs and lint tools": "nothing: it brings them",
    "docs": "a warning of Sphinx, a reference that leads nowhere",
    "lint": "format, lint, types, a stub that is not the module's",
    "the benchmarks' peers": "nothing: it brings them",
    "benchmarks beside their peers": "a benchmark that another library's version breaks",
    "a cross-compiler": "nothing: it brings it",
    "other systems": "a warning of Clang for Windows, macOS, or Linux with musl",
    "a compiler for GPUs": "nothing: it brings it",
    "kernels for GPUs": "a warning of NVIDIA's compiler, a product fused with a sum, a kernel that spills",
    "compiling": "C++ that takes longer to compile, or more memory, than its limit allows",
    "tests, oldest versions": "a library that pyproject.toml allows and that is too old",
    "tests, newest versions": "a library that has changed since the versions were pinned",
    "functions of the bindings": "a function of `src/bindings` that the sanitizers of `.ci/run` do not see",
    "C++ tests, sanitize": "memory errors and undefined behaviour in the headers",
    "C++ tests, sanitize-threads": "data races in the headers",
    "Python tests, sanitize": "the same in each function of the extension module",
    "Python tests, sanitize, all": "the same in every test of the extension module",
}


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Keep what the steps of continuous integration took.")
    parser.add_argument("which", choices=["run", "full"])
    parser.add_argument("file", type=Path, help="a line a step: name, seconds and outcome, with tabs between")
    parser.add_argument("--out", type=Path, default=OUT, help="folder for the result, by default build/steps")
    arguments = parser.parse_args(argv)
    lines = arguments.file.read_text(encoding="utf-8").splitlines()
    rows = [
        {"step": step, "seconds": int(seconds)} for step, seconds, _ in (line.split("\t") for line in lines)
    ]
    result = results.begin(f"ci-{arguments.which}", threads=machine.cores(), rows=rows)
    path = arguments.out / results.default_path(result).name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(f"written to {path}")


if __name__ == "__main__":
    main()
