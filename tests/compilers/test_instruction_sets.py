"""One module for every CPU: each instruction set is chosen by name, gives the digests, stays to itself."""

import os
import re
import sys

import pytest

import adafactor
import digest
from cpp_build import built, compiled, configure_tests, required, run, tool
from digest import CASES
from sources import PYTHONPATH, ROOT

ISAS = adafactor.build_info()["isas"]
BUILD_FILES = ["CMakeLists.txt", "pyproject.toml", "cmake", "src", "tests/cpp", "tests/consume"]


def python(program, *arguments, isa=None, through=()):
    """What another Python prints, with ADAFACTOR_ISA set to `isa`."""
    environment = {key: value for key, value in os.environ.items() if key != "ADAFACTOR_ISA"}
    environment["PYTHONPATH"] = PYTHONPATH
    if isa is not None:
        environment["ADAFACTOR_ISA"] = isa
    command = (*through, sys.executable, "-c", program, *arguments)
    return run(*command, env=environment)


DIGESTS = """
import sys, adafactor, digest
for threads in (1, 2, 3, 7):
    adafactor.set_num_threads(threads)
    for name in sys.argv[1:]:
        found = digest.run(digest.CASES[name])[0]
        assert found == digest.CASES[name].digest, (name, threads, found)
print(adafactor.build_info()["isa"])
"""


@pytest.mark.parametrize("isa", ISAS)
def test_each_instruction_set_gives_the_digests(isa):
    result = python(DIGESTS, *CASES, isa=isa)
    assert result.stdout.split() == [isa]
    assert result.returncode == 0


@pytest.mark.parametrize("isa", [None, ""])
def test_the_fastest_is_the_default(isa):
    result = python('import adafactor; print(adafactor.build_info()["isa"])', isa=isa)
    assert result.stdout.strip() == ISAS[-1]


MISTAKES = {
    "init": 'adafactor.init({"w": numpy.ones((3, 4))})',
    "build_info": "adafactor.build_info()",
}


@pytest.mark.parametrize("call", MISTAKES.values(), ids=MISTAKES)
def test_an_unknown_name_is_refused_each_time(call):
    program = (
        "import adafactor, numpy\n"
        "for attempt in range(2):\n"
        "    try:\n"
        f"        {call}\n"
        "    except ValueError as error:\n"
        "        print(error)\n"
    )
    names = ", ".join(f"'{isa}'" for isa in ISAS)
    text = (
        "ADAFACTOR_ISA: 'avx9', expected an instruction set that this build has and this machine can run: "
        + names
    )
    assert python(program, isa="avx9").stdout.splitlines() == [text, text]


def test_the_command_says_which_name_is_wrong():
    program = "from adafactor.__main__ import main; raise SystemExit(main(['info']))"
    result = python(program, isa="avx9")
    assert result.returncode == 1
    assert result.stdout.startswith("ADAFACTOR_ISA: 'avx9', expected an instruction set")
    assert result.stdout.count("\n") == 1


@pytest.mark.skipif("x86-64-v2" not in ISAS, reason="this is no x86-64 CPU")
def test_a_cpu_from_2008_runs_what_it_can():
    """Nehalem has SSE4.2 and no AVX: an instruction beyond it would end the program."""
    small = [name for name in CASES if name not in {"tall", "wide", "both", "everything"}]
    nehalem = (required("qemu-x86_64"), "-cpu", "Nehalem")
    found = python(DIGESTS, *small, through=nehalem)
    assert found.stdout.split() == ["x86-64-v2"]
    refused = python("import adafactor; adafactor.build_info()", isa="x86-64-v3", through=nehalem)
    assert refused.returncode == 1
    assert "this machine can run: 'x86-64-v2'" in refused.stdout


def test_an_arm_cpu_gives_the_digests(tmp_path):
    emulator = required("qemu-aarch64")
    cross = (
        required("aarch64-linux-gnu-g++"),
        "-std=c++20",
        "-O2",
        "-static",
        "-Wall",
        "-Wextra",
        "-Werror",
    )
    program = tmp_path / "program"
    source = ROOT / "tests/cpp/support/print_digests.cpp"
    result = built((*cross, f"-I{ROOT / 'include'}"), source, program)
    assert result.returncode == 0, result.stdout
    digest.assert_program_prints_them(emulator, program)


@pytest.fixture(scope="module")
def objects(tmp_path_factory):
    """The objects with the loops, by the name of their folder."""
    folder = tmp_path_factory.mktemp("objects")
    configure_tests(folder)
    targets = [f"adafactor_cpu_{re.sub('[^a-z0-9]', '_', isa)}" for isa in available_isas()]
    made = run(tool("cmake"), "--build", folder, "--target", *targets)
    assert made.returncode == 0, made.stdout
    found = {path.parent.name: path for path in folder.glob("cpu/CMakeFiles/*/kernels.cpp.o")}
    assert len(found) == len(targets)
    return found


def available_isas():
    """Those of the build, whether this machine can run them or not."""
    x86 = ("x86-64-v2", "x86-64-v3", "x86-64-v4")
    return x86 if ISAS[0] in x86 else ISAS


def shared_symbols(listed):
    """What another object could hold too, of what `nm` prints: {name: kind}."""
    parts = (re.fullmatch(r"[0-9a-f ]{16} (.) (.*)", line).groups() for line in listed.splitlines())
    return {name: kind for kind, name in parts if kind in "uwvVWABCDGRST" or kind == "i"}


def test_the_objects_share_no_symbol(objects):
    """Two instruction sets with one weak symbol between them are one to the linker, which keeps either."""
    for name, path in objects.items():
        table = name.removeprefix("adafactor_cpu_").removesuffix(".dir")
        shared = shared_symbols(run(required("nm"), "--demangle", path).stdout)
        strong = [symbol for symbol, kind in shared.items() if kind not in "uwvVW"]
        assert [symbol.rpartition("::")[2] for symbol in strong] == [table], name
        assert [symbol for symbol in shared if table not in symbol] == [], name


@pytest.mark.parametrize("level", ["-O0", "-O1", "-O2"])
@pytest.mark.parametrize("compiler", ["g++", "clang++"])
def test_each_weak_symbol_bears_the_tag_of_its_object(compiler, level, tmp_path):
    """With every compiler's own idea of what becomes a symbol: what is inlined at -O3 is one at -O0."""
    command = (
        required(compiler),
        "-std=c++20",
        level,
        f"-I{ROOT / 'include'}",
        "-fno-exceptions",
        "-DADAFACTOR_COMPILED",
        '-DADAFACTOR_CPU_NAME="x86-64-v9"',
        "-DADAFACTOR_ISA_TAG=tag_of_this_object",
    )
    found = compiled(command, ROOT / "src/cpu/kernels.cpp", tmp_path / "object.o")
    assert found.returncode == 0, found.stdout
    shared = shared_symbols(run(required("nm"), "--demangle", tmp_path / "object.o").stdout)
    assert len(shared) > 10
    assert [symbol for symbol in shared if "tag_of_this_object" not in symbol] == []


def test_no_object_has_a_fused_multiply_add(objects):
    products = re.compile(r"\tv?mulp[sd]\b|\tfmul\b")
    for name, path in objects.items():
        code = run(required("objdump"), "--disassemble", "--no-show-raw-insn", path).stdout
        assert products.search(code), name
        assert not re.search(r"\tvfn?m(add|sub)|\tfn?m(add|sub|la|ls)\b", code), name


@pytest.mark.skipif("x86-64-v2" not in ISAS, reason="this is no x86-64 CPU")
def test_each_object_has_registers_as_wide_as_its_name_says(objects):
    widest = {}
    for name, path in objects.items():
        code = run(required("objdump"), "--disassemble", "--no-show-raw-insn", path).stdout
        widest[name[-6:-4]] = max(re.findall(r"%([xyz]mm)\d", code))
    assert widest == {"v2": "xmm", "v3": "ymm", "v4": "zmm"}


def test_no_build_file_asks_for_this_machine_or_for_fast_mathematics():
    files = []
    for name in BUILD_FILES:
        path = ROOT / name
        files += [path] if path.is_file() else [*path.rglob("CMake*"), *path.rglob("*.cmake*")]
    assert len(files) > 8
    for path in files:
        text = path.read_text(encoding="utf-8")
        for flag in ("-march=native", "-mcpu=native", "-ffast-math", "-Ofast", "-funsafe"):
            assert flag not in text, path


def test_the_environment_is_read_once(monkeypatch):
    monkeypatch.setenv("ADAFACTOR_ISA", "avx9")
    assert adafactor.build_info()["isa"] in ISAS
