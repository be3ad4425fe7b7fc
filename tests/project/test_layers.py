"""The rules of the architecture, read off the sources: who may include and name what."""

import graphlib
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

import sources
from cpp_build import required

ROOT = sources.ROOT


@dataclass(frozen=True)
class Rule:
    """`pattern` may stand in the code of C++ files whose path matches `allowed`, and in no other."""

    name: str
    pattern: str
    allowed: str

    def breaches(self, root: Path) -> list[str]:
        paths = [(path, path.relative_to(root).as_posix()) for path in sources.cpp_files(root)]
        code = {name: sources.cpp_code(path) for path, name in paths if not re.fullmatch(self.allowed, name)}
        return [name for name, text in code.items() if re.search(self.pattern, text, re.MULTILINE)]


# What only CUDA's compiler or runtime gives.
CUDA = "|".join(
    [
        r"<(cuda|nv/|cub/|thrust/|cooperative_groups)|<<<",
        r"\b(cuda|cu)[A-Z]\w*",
        r"\b__CUDA_ARCH|\b__nv\w+",
        r"\b__(global|shared|constant|managed|grid_constant|launch_bounds|maxnreg)__",
        r"\b__(sync(threads|warp)|threadfence|shfl|ballot|activemask|all_sync|any_sync|match_|reduce_|ldg|stcg)\w*",
        r"\b(thread|block)Idx\b|\b(block|grid)Dim\b|\bwarpSize\b",
        r"\batomic(Add|Sub|Exch|Min|Max|Inc|Dec|CAS|And|Or|Xor)\w*",
    ]
)
# The macros by which a preprocessor knows a GPU, and an instruction set of a CPU.
ON_DEVICES = r"ADAFACTOR_LANES_ARE_THREADS|__CUDA|__NVCC__"
ON_CPUS = r"ADAFACTOR_NATIVE_LANES|__AVX|__SSE|__FMA__|__F16C__|__ARM_|__aarch64__|__x86_64__"

RULES = [
    Rule("pybind11", r"pybind11|<Python\.h>", r"src/bindings/.*"),
    Rule(
        "OpenMP",
        r"<omp\.h>|#\s*pragma\s+omp|\bomp_\w+\(",
        r"include/adafactor/cpu/threads/openmp\.hpp|tests/cpp/cpu/test_parallel\.cpp",
    ),
    Rule(
        "threads",
        r"<(thread|mutex|condition_variable)>",
        r"include/adafactor/(cpu/threads/(openmp|pool)|host/cores)\.hpp|(tests|benchmarks)/.*",
    ),
    Rule("fork", r"<pthread\.h>|\bfork\(\)", r"include/adafactor/host/fork\.hpp|tests/.*"),
    Rule("Eigen", r"<Eigen/", r"include/adafactor/eigen\.hpp|(tests|benchmarks)/.*"),
    Rule("CUDA", CUDA, r"src/cuda/.*"),
    Rule(
        "CUDA's words",
        r"__(host|device|forceinline|noinline)__|__CUDACC",
        r"src/cuda/.*|include/adafactor/compiler/abi\.hpp",
    ),
    Rule(
        "lanes of threads",
        "ADAFACTOR_LANES_ARE_THREADS",
        r"include/adafactor/(lanes|compiler)/.*|tests/cpp/cuda/emulated\.cpp",
    ),
    Rule(
        "conditions on a device",
        rf"^[ \t]*#[ \t]*(el)?if(\\\n|.)*({ON_DEVICES})",
        r"include/adafactor/(lanes|compiler)/.*|src/cuda/threads\.hpp",
    ),
    # The code of an instruction set that is not in lanes/: noise, permutations, rounding modes, pauses.
    Rule(
        "conditions on an instruction set",
        rf"^[ \t]*#[ \t]*(el)?if(\\\n|.)*({ON_CPUS})",
        r"include/adafactor/(lanes/.*|compiler/.*|host/(floating_point|streams)\.hpp|cpu/short/factors\.hpp"
        r"|cpu/threads/job\.hpp|cpu/runs/noise\.hpp)|src/cpu/.*|(tests|benchmarks)/.*",
    ),
    Rule(
        "intrinsics",
        r"<(\w*mmintrin|x86intrin|arm_neon)\.h>",
        r"include/adafactor/(lanes/numbers|host/floating_point)\.hpp|src/cpu/.*",
    ),
]

# The folders of the C++ code, and those whose files each may include besides its own.
LAYERS = {
    "include/adafactor": (),
    "src/cpu": ("include/adafactor",),
    "src/cuda": ("include/adafactor",),
    "src/bindings": ("include/adafactor", "src/cpu", "src/cuda"),
    "tests/cpp": ("include/adafactor", "src/cpu", "src/cuda"),
    "tests/consume/gpu": ("include/adafactor", "src/cuda"),
    "tests/consume": ("include/adafactor",),
}


def wing_breaches(root: Path) -> list[str]:
    """Includes between headers of the core that the table does not have."""
    table = sources.wings(root)
    found = []
    for header, targets in header_graph(root).items():
        wing = sources.wing_of(f"{header}.hpp", table)
        for target in sorted(targets):
            other = sources.wing_of(f"{target}.hpp", table)
            if other not in {wing, *table[wing]}:
                found.append(f"{header}.hpp includes {target}.hpp")
    return found


def floors(graph: dict[str, set[str]]) -> int:
    """How many headers the longest chain of includes has."""
    depth: dict[str, int] = {}
    for header in graphlib.TopologicalSorter(graph).static_order():
        depth[header] = 1 + max((depth[target] for target in graph[header]), default=0)
    return max(depth.values())


def layer_breaches(root: Path) -> list[str]:
    """Includes that go up a layer or lead nowhere."""
    found = []
    for path in sources.cpp_files(root):
        name = path.relative_to(root).as_posix()
        layer = next((folder for folder in LAYERS if name.startswith(f"{folder}/")), None)
        for included, target in sources.included_files(path, root).items():
            if target is None:
                found.append(f"{name} includes {included}, which is nowhere")
            elif layer is not None:
                folders = [root / folder for folder in (layer, *LAYERS[layer])]
                if not any(target.is_relative_to(folder) for folder in folders):
                    found.append(f"{name} includes {included}, which lies above it")
    return found


def header_graph(root: Path) -> dict[str, set[str]]:
    """Which header of the core includes which, named as under include/adafactor, without the ending."""
    folder = root / "include/adafactor"

    def name(path: Path) -> str:
        return path.relative_to(folder).with_suffix("").as_posix()

    graph = {}
    for path in sorted(folder.rglob("*.hpp")):
        targets = sources.included_files(path, root).values()
        graph[name(path)] = {name(target) for target in targets if target and target.is_relative_to(folder)}
    return graph


def reachable(graph: dict[str, set[str]], start: str) -> set[str]:
    seen: set[str] = set()
    open_ends = [start]
    while open_ends:
        for name in graph.get(open_ends.pop(), set()) - seen:
            seen.add(name)
            open_ends.append(name)
    return seen


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_a_dependency_stands_only_where_it_may(rule):
    assert rule.breaches(ROOT) == []


def test_no_file_includes_a_higher_layer():
    assert layer_breaches(ROOT) == []


def test_the_headers_of_the_core_use_the_standard_library_alone():
    exceptions = {
        "openmp": {"omp.h"},
        "fork": {"pthread.h"},
        "cores": {"sched.h"},
        "numbers": {"immintrin.h", "emmintrin.h", "arm_neon.h"},
        "floating_point": {"xmmintrin.h"},
    }
    for path in (ROOT / "include/adafactor").rglob("*.hpp"):
        names = {include[1:] for include in sources.includes(path) if include.startswith("<")}
        foreign = {name for name in names if not re.fullmatch(r"[a-z_]+|Eigen/\w+", name)}
        assert foreign <= exceptions.get(path.stem, set()), path.name


def test_headers_include_each_other_without_a_cycle():
    graph = header_graph(ROOT)
    assert floors(graph) <= 11  # raises CycleError, which shows the cycle
    assert not any("adafactor" in included for included in graph.values()), "the umbrella is for users"


def test_headers_include_what_the_map_says():
    assert wing_breaches(ROOT) == []


def test_an_include_that_the_map_does_not_have_is_seen(tmp_path):
    files = {
        "docs/design/map.md": (ROOT / "docs/design/map.md").read_text(encoding="utf-8"),
        "include/adafactor/lanes/a.hpp": '#include "adafactor/order.hpp"\n#include "adafactor/config.hpp"',
        "include/adafactor/order.hpp": "",
        "include/adafactor/config.hpp": '#include "adafactor/error.hpp"',
        "include/adafactor/error.hpp": "",
    }
    sources.write(files, tmp_path)
    assert wing_breaches(tmp_path) == ["lanes/a.hpp includes config.hpp"]
    assert floors(header_graph(tmp_path)) == 3
    assert intrinsics_reached(tmp_path, "lanes/a") == []
    sources.write({"include/adafactor/error.hpp": "#include <emmintrin.h>"}, tmp_path)
    assert intrinsics_reached(tmp_path, "lanes/a") == ["error"]


# Headers that a program may want for a shape or a knob, in files where no loop is compiled.
WITHOUT_LOOPS = ("config", "dtype", "error", "order", "plan", "state", "tensor")
INTRINSICS = re.compile(r"(\w*mmintrin|x86intrin|arm_neon)\.h")


def intrinsics_reached(root: Path, header: str) -> list[str]:
    """The headers with intrinsics among those that a header of the core includes, at whatever distance."""
    reached = {header} | reachable(header_graph(root), header)
    texts = {name: list(sources.includes(root / f"include/adafactor/{name}.hpp")) for name in sorted(reached)}
    return [name for name, includes in texts.items() if any(map(INTRINSICS.search, includes))]


@pytest.mark.parametrize("header", WITHOUT_LOOPS)
def test_shapes_and_knobs_reach_no_intrinsics(header):
    assert intrinsics_reached(ROOT, header) == []


@pytest.mark.parametrize("defined", [(), ("-DADAFACTOR_COMPILED",)], ids=["alone", "compiled"])
def test_shapes_and_knobs_are_compiled_without_intrinsics(defined):
    """The preprocessor's own word, which knows what the standard library's headers bring along."""

    def preprocessed(*headers: str) -> str:
        text = "".join(f'#include "adafactor/{header}.hpp"\n' for header in headers)
        command = [required("c++"), "-std=c++20", "-E", "-x", "c++", f"-I{ROOT / 'include'}", *defined, "-"]
        result = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stderr
        return result.stdout

    assert INTRINSICS.findall(preprocessed(*WITHOUT_LOOPS)) == []
    assert INTRINSICS.findall(preprocessed("lanes/numbers")) != []


def test_namespaces_are_opened_as_editors_read_them():
    joined = re.compile(r"\bnamespace\s+\w+(::\w+)*::inline\b")
    assert [path for path in sources.cpp_files() if joined.search(path.read_text(encoding="utf-8"))] == []


def test_the_umbrella_brings_in_every_header_but_the_opt_in_ones():
    graph = header_graph(ROOT)
    opt_in = {"eigen", "parts"}
    assert reachable(graph, "adafactor") == set(graph) - opt_in - {"adafactor"}


def test_exact_arithmetic_is_switched_on_and_off_in_pairs():
    for path in sources.cpp_files():
        marks = re.findall(
            r'#include "adafactor/compiler/exact_(begin|end)\.hpp"', path.read_text(encoding="utf-8")
        )
        assert marks in ([], ["begin", "end"]), path


BUILD = {"CMakeLists.txt", "CMakePresets.json", "pyproject.toml"}


def build_files() -> list[Path]:
    """What says how something is compiled."""
    folders, endings = {".ci"}, {".cmake", ".in"}
    return [
        path
        for path in sources.files()
        if path.name in BUILD or path.suffix in endings or path.parent.name in folders
    ]


def test_no_build_file_asks_for_one_machine_or_inexact_arithmetic():
    flags = re.compile("|".join(["=" + "native", "-ffast" + "-math", "-O" + "fast", "-funsafe" + "-math"]))
    assert {path.name for path in build_files()} >= BUILD
    assert [path for path in build_files() if flags.search(path.read_text(encoding="utf-8"))] == []


def test_kernels_are_compiled_by_one_folder():
    cuda = ROOT / "src/cuda"
    assert {path.parent for path in sources.cpp_files() if path.suffix in {".cu", ".cuh"}} == {cuda}
    macro = "ADAFACTOR_LANES_ARE_THREADS"
    defining = [path for path in build_files() if macro in path.read_text(encoding="utf-8")]
    assert defining == [cuda / "CMakeLists.txt"]


OF_CUDA = [
    *("#include <cuda_runtime.h>", "#include <cooperative_groups.h>", "void f(cudaStream_t stream);"),
    *("cudaMalloc(&memory, 1);", "cuDevicePrimaryCtxGetState", "f<<<1, 256>>>();", "#ifdef __CUDA_ARCH__"),
    *(
        "__global__ void f();",
        "__shared__ float a[16];",
        "__constant__ float a;",
        "f(const __grid_constant__ A a);",
    ),
    *(
        "void __launch_bounds__(256) f();",
        "__syncthreads();",
        "__syncwarp();",
        "__threadfence();",
        "__ldg(a);",
    ),
    *("__shfl_xor_sync(mask, a, 1);", "__ballot_sync(mask, a);", "__activemask();", "int i = threadIdx.x;"),
    *("blockIdx.x", "blockDim.x", "gridDim.x", "warpSize", "atomicAdd(&a, 1);", "atomicCAS(&a, 0, 1);"),
]
QUALIFIERS = ["__host__", "__device__", "__forceinline__", "__noinline__"]
CONDITIONS = [
    ("lanes of threads", "cpu/moments.hpp", "if ADAFACTOR_LANES_ARE_THREADS"),
    ("conditions on a device", "step/decide.hpp", "ifdef __CUDACC_VER_MAJOR__"),
    ("conditions on a device", "cpu/rms.hpp", "if defined(A) && \\\n    defined(__CUDA_ARCH__)"),
    ("conditions on an instruction set", "cpu/rms.hpp", "elif ADAFACTOR_NATIVE_LANES"),
    ("conditions on an instruction set", "cpu/runs/loops.hpp", "if defined(__AVX2__)"),
]

# A rule that cannot see a breach is no rule: each is shown a file that breaks it and a comment that does not.
BREACHES = [
    ("pybind11", "src/cpu/a.cpp", "#include <pybind11/pybind11.h>", "// <pybind11/pybind11.h>"),
    ("OpenMP", "include/adafactor/step.hpp", "#pragma omp parallel for", "/* #pragma omp */"),
    ("threads", "include/adafactor/cpu/threads/threads.hpp", "#include <thread>", "// <thread>"),
    ("fork", "src/bindings/step.cpp", "#include <pthread.h>", "// <pthread.h>"),
    ("Eigen", "src/bindings/a.cpp", "#  include <Eigen/Dense>", "// <Eigen/Dense>"),
    *(("CUDA", "include/adafactor/cpu/apply.hpp", word, f"// {word}") for word in OF_CUDA),
    *(
        ("CUDA's words", "include/adafactor/step/decide.hpp", f"{word} int f();", f"/* {word} */")
        for word in QUALIFIERS
    ),
    *(
        (name, f"include/adafactor/{path}", f"#  {condition}\n#endif", f"// #{condition}")
        for name, path, condition in CONDITIONS
    ),
    ("intrinsics", "include/adafactor/cpu/runs/loops.hpp", "#include <immintrin.h>", "// <immintrin.h>"),
]


@pytest.mark.parametrize(("name", "path", "breach", "innocent"), BREACHES)
def test_the_rules_see_a_breach(name, path, breach, innocent, tmp_path):
    (rule,) = [rule for rule in RULES if rule.name == name]
    file = tmp_path / path
    file.parent.mkdir(parents=True)
    file.write_text(innocent + "\n", encoding="utf-8")
    assert rule.breaches(tmp_path) == []
    file.write_text(breach + "\n", encoding="utf-8")
    assert rule.breaches(tmp_path) == [path]


def test_every_rule_is_shown_a_breach():
    assert {row[0] for row in BREACHES} == {rule.name for rule in RULES}


def test_a_higher_layer_and_a_cycle_are_seen(tmp_path):
    files = {
        "include/adafactor/plan.hpp": '#include "adafactor/step.hpp"\n#include "../../src/cpu/table.hpp"',
        "include/adafactor/step.hpp": '#include "adafactor/plan.hpp"\n#include "adafactor/absent.hpp"',
        "src/cpu/table.hpp": '#include "adafactor/plan.hpp"',
    }
    sources.write(files, tmp_path)
    assert layer_breaches(tmp_path) == [
        "include/adafactor/plan.hpp includes ../../src/cpu/table.hpp, which lies above it",
        "include/adafactor/step.hpp includes adafactor/absent.hpp, which is nowhere",
    ]
    with pytest.raises(graphlib.CycleError):
        tuple(graphlib.TopologicalSorter(header_graph(tmp_path)).static_order())
