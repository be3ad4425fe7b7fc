"""Scripts that run in a process of their own, and what they find."""

import json
import os
import subprocess
import sys
from typing import Any

from sources import PYTHONPATH

SECONDS = 300
"""For what hangs; never met otherwise."""


def found_by(script: str, **environment: str) -> Any:
    """What a script assigns to `found`. Of the variables that concern OpenMP it gets those given alone."""
    variables = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))}
    result = subprocess.run(
        [sys.executable, "-c", f"{script}\nimport json, sys\nsys.stdout.write(json.dumps(found))"],
        env={**variables, "PYTHONPATH": PYTHONPATH, **environment},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)
