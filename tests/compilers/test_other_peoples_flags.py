"""The headers among other people's macros, warnings, and flags that break what is promised."""

import subprocess
from pathlib import Path

import pytest

from cpp_build import required, required_cpu

ROOT = Path(__file__).parents[2]
INSTRUCTION_SETS = {"sse2": [], "avx2": ["-mavx2", "-mf16c", "-mbmi2"], "avx512": ["-march=x86-64-v4"]}
STANDARD = """
algorithm array atomic bit cmath concepts condition_variable cstdio cstdlib cstring exception functional
initializer_list iostream limits memory mutex new numeric optional span stdexcept string string_view
thread tuple type_traits utility variant vector immintrin.h pthread.h omp.h
"""
# Of <windows.h>, X11, macOS, Qt, <complex.h>, <sys/sysmacros.h> and GNU C.
WORDS = """
small near far ERROR IN OUT OPTIONAL interface pascal cdecl CONST DELETE NO_ERROR TRUE FALSE VOID BOOL
DIFFERENCE ABSOLUTE RELATIVE TRANSPARENT OPAQUE hyper STRICT THIS PURE INFINITE IGNORE GetObject
GetMessage SendMessage Yield CALLBACK DOMAIN OVERFLOW UNDERFLOW rad1 Bool Status Success None Always True
False KeyPress Complex Above Below Window Display Font Time Mask check verify require slots signals emit
foreach major minor I unix linux i386 BIG_ENDIAN LITTLE_ENDIAN BYTE_ORDER DEBUG CHECK LOG INFO WARNING
FATAL PI E
"""
WARNINGS = "-Wall -Wextra -Wpedantic -Wconversion -Wsign-conversion -Wold-style-cast -Wshadow -Werror"
PROGRAM = """
#include <adafactor/adafactor.hpp>
int main() {
  float w[12] = {}, g[12] = {};
  adafactor::Optimizer optimizer{adafactor::Config{}, {{{4, 3}, adafactor::DType::float32}}};
  optimizer.step({w}, {g});
}
"""


def compiled(compiler, flags, source=PROGRAM):
    """What a compiler says of a file that includes the headers."""
    required(compiler)
    command = [compiler, "-std=c++20", "-fsyntax-only", *flags, f"-I{ROOT / 'include'}", "-x", "c++", "-"]
    return subprocess.run(command, input=source, capture_output=True, text=True, check=False)


def test_macros_of_others_do_no_harm():
    """They come after the standard headers, some of which take `min` and `max` back."""
    macros = [f"#define {name}(a, b) no good +" for name in ("min", "max")]
    macros += [f"#undef {word}\n#define {word} no good +" for word in WORDS.split()]
    source = "\n".join([*(f"#include <{name}>" for name in STANDARD.split()), *macros, PROGRAM])
    for flags in INSTRUCTION_SETS.values():
        said = compiled("g++", ["-fopenmp", *flags], source)
        assert said.returncode == 0, said.stderr[:2000]


@pytest.mark.parametrize(
    ("compiler", "isa"), [*(("g++", isa) for isa in INSTRUCTION_SETS), ("clang++", "avx2")]
)
def test_nobody_is_warned(compiler, isa):
    said = compiled(compiler, [*WARNINGS.split(), *INSTRUCTION_SETS[isa]])
    assert (said.returncode, said.stderr) == (0, "")


IEEE = "compile this file without -funsafe-math-optimizations and what it is made of"
REFUSED = {
    "-ffast-math": "compile this file without -ffast-math",
    "-Ofast": "compile this file without -ffast-math",
    "-ffinite-math-only": "compile this file without -ffinite-math-only",
    "-funsafe-math-optimizations": IEEE,
    "-freciprocal-math": IEEE,
    "-fno-signed-zeros": IEEE,
    "-fassociative-math -fno-signed-zeros -fno-trapping-math": IEEE,
    "-fsingle-precision-constant": IEEE,
    "-mfpmath=387": "compile this file with -mfpmath=sse",
    "-fno-exceptions": "compile this file without -fno-exceptions",
    "-std=c++17": "compile this file with -std=c++20",
}


@pytest.mark.parametrize(
    ("compiler", "flag"), [*(("g++", flag) for flag in REFUSED), ("clang++", "-ffinite-math-only")]
)
def test_a_flag_that_breaks_a_promise_is_refused_by_name(compiler, flag):
    said = compiled(compiler, flag.split())
    assert said.returncode != 0
    assert REFUSED[flag] in said.stderr


# As by a compiler that does not tell of them: the macros that give them away are taken back. What Clang is
# told to fuse it fuses, whatever a pragma says.
UNTOLD = [
    ("g++", "-funsafe-math-optimizations -U__GCC_IEC_559"),
    ("g++", "-freciprocal-math -U__GCC_IEC_559"),
    ("g++", "-fno-signed-zeros -U__GCC_IEC_559"),
    ("g++", "-ffinite-math-only -U__GCC_IEC_559 -U__FINITE_MATH_ONLY__"),
    ("clang++", "-ffp-contract=fast"),
]
ALLOWED = [
    ("g++", ""),
    ("g++", "-ffp-contract=fast"),
    ("clang++", ""),
    ("clang++", "-funsafe-math-optimizations"),
]
CHECK = """
#include <adafactor/cpu/exactness.hpp>
int main() { return adafactor::loops_compute_as_written() ? 0 : 1; }
"""


@pytest.mark.parametrize(("compiler", "flags"), [*ALLOWED, *UNTOLD])
def test_what_no_macro_tells_is_found_out_before_the_first_step(compiler, flags, tmp_path):
    required_cpu("fma")
    for level in ("-O1", "-O3"):
        program = tmp_path / "check"
        command = [required(compiler), "-std=c++20", level, "-mfma", *flags.split(), f"-I{ROOT / 'include'}"]
        subprocess.run([*command, "-x", "c++", "-", "-o", program], input=CHECK, text=True, check=True)
        found = subprocess.run([program], check=False).returncode
        assert found == ((compiler, flags) in UNTOLD), level


def test_loops_that_are_not_computed_as_written_are_an_error(tmp_path):
    program = tmp_path / "program"
    source = PROGRAM.replace("adafactor::Optimizer opt", "try { adafactor::Optimizer opt").replace(
        "optimizer.step({w}, {g});",
        "optimizer.step({w}, {g}); } catch (const adafactor::Error& e) { puts(e.what()); }",
    )
    command = ["g++", "-std=c++20", "-O1", "-freciprocal-math", "-U__GCC_IEC_559", f"-I{ROOT / 'include'}"]
    required(command[0])
    subprocess.run(
        [*command, "-x", "c++", "-", "-o", program], input=f"#include <cstdio>{source}", text=True, check=True
    )
    said = subprocess.run([program], capture_output=True, text=True, check=True).stdout
    assert "expected a compiler that keeps to IEEE 754" in said
