"""Who may import whom in the package, and what importing it loads."""

import graphlib
import json
import subprocess
import sys
from pathlib import Path

import sources

ROOT = sources.ROOT

FRAMEWORKS = {"cupy", "jax", "keras", "mlx", "optax", "tensorflow", "torch"}
# What a module of the package may import besides the standard library, NumPy and the package; one in a folder
# that is named after a framework may import this.
EXTRAS = {
    "demo/training": {"sklearn", "tqdm"},
    "demo/network_of_torch": {"torch"},
    "demo/picture": {"matplotlib"},
    "demo/command": {"threadpoolctl"},
    **{f"arrays/{name}": {name} for name in FRAMEWORKS},
}


def import_breaches(root: Path) -> list[str]:
    """Imports of the package that are neither the standard library, NumPy nor the module's own extra."""
    found = []
    package = root / "python/adafactor"
    for path in sorted(package.rglob("*.py")):
        name = path.relative_to(package).with_suffix("").as_posix()
        folder = name.partition("/")[0]
        allowed = {"numpy", "adafactor"} | EXTRAS.get(name, set()) | ({folder} & FRAMEWORKS)
        for name in sources.imports(path):
            top, _, rest = name.partition(".")
            if top not in allowed and top not in sys.stdlib_module_names:
                found.append(f"{path.relative_to(root).as_posix()} imports {name}")
            if top == "adafactor" and rest.split(".")[0] in FRAMEWORKS - allowed:
                found.append(f"{path.relative_to(root).as_posix()} imports {name}, which loads a framework")
    return found


def python_graph(root: Path) -> dict[str, set[str]]:
    """Which module of the package imports which; its own __init__ imports them all and is left out."""
    package = root / "python/adafactor"
    files = [path for path in package.rglob("*.py") if path.name != "__init__.py"]
    modules = {".".join(path.relative_to(package).with_suffix("").parts): path for path in files}
    graph = {}
    for name, path in modules.items():
        wanted = {imported.removeprefix("adafactor.") for imported in sources.imports(path)}
        graph[name] = {other for other in modules if other in wanted and other != name}
    return graph


def package_breaches(root: Path) -> list[str]:
    """Imports between parts of the package that the table does not have."""
    table = sources.wings(root, "part")
    package = root / "python/adafactor"
    found = []
    for path in sorted(package.rglob("*.py")):
        name = path.relative_to(package).as_posix()
        if name == "__init__.py":
            continue
        allowed = {
            "errors.py",
            "_core.py",
            sources.wing_of(name, table),
            *table[sources.wing_of(name, table)],
        }
        for imported in sorted(set(sources.imports(path))):
            root_name, _, rest = imported.partition(".")
            part = rest.partition(".")[0]
            target = f"{part}/" if (package / part).is_dir() else f"{part}.py"
            if root_name == "adafactor" and part and target not in allowed:
                found.append(f"{name} imports {imported}")
    return found


def test_modules_import_what_the_map_says():
    assert package_breaches(ROOT) == []


def test_an_import_that_the_map_does_not_have_is_seen(tmp_path):
    files = {
        "docs/design/map.md": (ROOT / "docs/design/map.md").read_text(encoding="utf-8"),
        "python/adafactor/trees/tree.py": "from adafactor import _core\nfrom adafactor.config import Config",
        "python/adafactor/config.py": "from adafactor.knobs.kinds import of_kind",
        "python/adafactor/knobs/kinds.py": "from adafactor.engine import call\nimport adafactor.trees.paths",
        "python/adafactor/engine/call.py": "import numpy",
    }
    sources.write(files, tmp_path)
    assert package_breaches(tmp_path) == [
        "knobs/kinds.py imports adafactor.engine",
        "knobs/kinds.py imports adafactor.engine.call",
        "trees/tree.py imports adafactor.config",
        "trees/tree.py imports adafactor.config.Config",
    ]


def test_a_framework_is_imported_only_by_the_module_named_after_it():
    assert import_breaches(ROOT) == []


def test_python_modules_import_each_other_without_a_cycle():
    tuple(graphlib.TopologicalSorter(python_graph(ROOT)).static_order())


def test_a_framework_that_is_imported_elsewhere_is_seen(tmp_path):
    files = {
        "python/adafactor/api.py": "def step():\n    import torch.nn\n    from .jax import update",
        "python/adafactor/arrays/torch.py": "import torch\nfrom adafactor.arrays import torch",
        "python/adafactor/torch/optimizer.py": "import torch\nimport jax\nfrom adafactor.torch import states",
    }
    sources.write(files, tmp_path)
    assert import_breaches(tmp_path) == [
        "python/adafactor/api.py imports torch.nn",
        "python/adafactor/api.py imports adafactor.jax, which loads a framework",
        "python/adafactor/api.py imports adafactor.jax.update, which loads a framework",
        "python/adafactor/torch/optimizer.py imports jax",
    ]


def test_importing_the_package_loads_numpy_and_nothing_heavier():
    script = """
import json, sys
before = set(sys.modules)
import adafactor
after = {name.partition(".")[0] for name in set(sys.modules) - before}
print(json.dumps(sorted(after - set(sys.stdlib_module_names))))
"""
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout) == ["adafactor", "numpy"]
