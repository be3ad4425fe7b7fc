# What .ci/run and .ci/full share: they source this file first. Each is a list of steps, and every step runs even when an
# earlier one failed; the last lines say which did, and how many seconds each took.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# A list that pip splits at blanks, so the file is named by a path without any. Older versions of pip hold build
# requirements to PIP_CONSTRAINT, newer ones to PIP_BUILD_CONSTRAINT; each ignores what it does not know.
cp .ci/constraints.txt "$work/constraints.txt"
export PIP_CONSTRAINT="$work/constraints.txt" PIP_BUILD_CONSTRAINT="$work/constraints.txt"
export ADAFACTOR_REQUIRE_PEERS=1 # a comparison with another library that cannot run is a failure, not a skip
export CMAKE_ARGS=-DADAFACTOR_WERROR=ON # of the extension module; a reader of the README gets warnings
unset PYTHONPATH PYTHONHOME VIRTUAL_ENV ADAFACTOR_ISA

failed=()
: >"$work/steps.tsv"

# attempt NAME COMMAND...: says what runs, runs it, and remembers how long it took and whether it failed.
attempt() {
  local name=$1 start=$SECONDS outcome=passed
  shift
  printf '\n=== %s: %s\n' "$name" "$*"
  "$@" </dev/null || { outcome=FAILED && failed+=("$name"); }
  printf '%s\t%s\t%s\n' "$name" $((SECONDS - start)) "$outcome" >>"$work/steps.tsv"
  printf '=== %s: %s in %s s\n' "$name" "$outcome" $((SECONDS - start))
}

# finish NAME: the last lines, and the exit code. What a whole run took, without a failure, is written down.
finish() {
  printf '\n.ci/%s of commit %s%s\n' "$1" "$(git rev-parse HEAD)" "$(git diff --quiet HEAD || echo ', changed')"
  awk -F '\t' '{ printf "%6d s  %s%s\n", $2, $1, $3 == "passed" ? "" : ", " $3 }' "$work/steps.tsv"
  if ((${#failed[@]})); then
    printf '.ci/%s: FAILED: %s\n' "$1" "$(IFS=,; echo "${failed[*]}")"
    exit 1
  fi
  in_environment tests-environment python -m benchmarks.steps "$1" "$work/steps.tsv"
  printf '.ci/%s: all passed in %s s\n' "$1" "$SECONDS"
}

# readme_command N: the text of the N-th sh block of the README.
readme_command() {
  awk -v wanted="$1" '/^```sh$/ { inside = 1; ++n; next } /^```/ { inside = 0 } inside && n == wanted' README.md
}

# in_environment NAME COMMAND...: with that environment first on the path, as its activation would put it.
in_environment() {
  local environment=$work/$1
  shift
  PATH="$environment/bin:$PATH" VIRTUAL_ENV="$environment" "$@"
}

# as_a_reader NAME COMMAND: what somebody who pastes the command into a shell gets.
as_a_reader() {
  python3 -m venv "$work/$1" && in_environment "$1" bash -euo pipefail -c "$2"
}

# extras NAME...: the requirements of these extras of the package, one a line.
extras() {
  python3 - "$@" <<'PYTHON'
import sys, tomllib
named = tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]
print(*(each for name in sys.argv[1:] for each in named[name]), sep="\n")
PYTHON
}

# The steps of both.

prepare() {
  demo=$(readme_command 1)
  tests=$(readme_command 2)
  if [[ $demo != *"adafactor demo"* || $tests != *pytest ]]; then
    echo "README.md: the two commands are not its first two sh blocks"
    exit 1
  fi
  python3 -c 'import sys; print("Python", sys.version); sys.exit(sys.version_info < (3, 11))'
  "${CXX:-c++}" --version | head -n 1
  attempt "compilers and emulators" .ci/tools
  # Every build by CMake asks ccache first, where that is here; the paths of a build folder are not looked at.
  if command -v ccache >/dev/null; then
    export CMAKE_CXX_COMPILER_LAUNCHER=ccache CCACHE_NOHASHDIR=1
  fi
}

# What a user gets: the wheel as it is published, and what it requires, consumed out of an environment with nothing else,
# then with other libraries in the process.
published_wheel() {
  attempt wheel in_environment tests-environment .ci/wheel "$work/wheels"
  attempt "what the wheel requires" in_environment tests-environment \
    bash -c 'pip download --quiet --only-binary :all: --dest "$1" "$1"/adafactor-*.whl' - "$work/wheels"
  attempt "consumer of the wheel" in_environment tests-environment \
    env ADAFACTOR_WHEELS="$work/wheels" pytest "$@" tests/compilers/test_consume.py -k "wheel"
  attempt "the wheel beside other libraries" in_environment tests-environment \
    env ADAFACTOR_WHEELS="$work/wheels" pytest "$@" tests/process/test_openmp.py
}

documentation_and_lint() {
  extras docs lint >"$work/extras.txt"
  attempt "docs and lint tools" in_environment tests-environment pip install --quiet -r "$work/extras.txt"
  attempt docs in_environment tests-environment sphinx-build -W --keep-going -n -q -E docs "$work/html"
  attempt lint in_environment tests-environment .ci/lint
}

# timm asks for torchvision, and with it for another torch; its optimizers need neither.
presets_beside_timm() {
  attempt timm in_environment tests-environment pip install --quiet --no-deps timm
  attempt "presets beside timm" in_environment tests-environment \
    env ADAFACTOR_REQUIRE_TIMM=1 pytest tests/presets tests/torch -k timm
}

# The C++ tests under each of the sanitizers.
sanitized_programs() {
  local preset eigen where='import sys; sys.path.insert(0, "tests/support"); from cpp_build import eigen_prefixes; print(*eigen_prefixes())'
  eigen=$(in_environment tests-environment python -c "$where" || true)
  for preset in sanitize sanitize-threads; do
    attempt "C++ tests, $preset" in_environment tests-environment env CMAKE_PREFIX_PATH="$eigen" \
      bash -c 'cd tests/cpp && cmake --workflow --preset "$1" --fresh' - "$preset"
  done
}
