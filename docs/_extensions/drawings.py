"""Draws the pictures of the documentation when Sphinx starts a build, each for light and for dark pages."""

from pathlib import Path
from typing import Any

import phases
import pictures

FOLDER = Path(__file__).resolve().parents[1] / "build/pictures"

# Text, lines and fills of furo's two modes; the colours of leaves are Okabe and Ito's, distinct for all eyes.
PALETTES = {
    "light": {
        "ink": "#1f2328",
        "faint": "#b5bac1",
        "paper": "#ffffff",
        "soft": "#e8f1f8",
        "warm": "#fdf0e3",
        "leaves": "#0072B2 #D55E00 #009E73 #CC79A7",
    },
    "dark": {
        "ink": "#d7dae0",
        "faint": "#565c66",
        "paper": "#131416",
        "soft": "#1d2b38",
        "warm": "#352716",
        "leaves": "#56B4E9 #E69F00 #009E73 #CC79A7",
    },
}


def draw(folder: Path = FOLDER, ending: str = "svg") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    runs = pictures.runs()
    for mode, palette in PALETTES.items():
        phases.draw(folder / f"phases-{mode}.{ending}", palette)
        for name, run in runs.items():
            pictures.draw(run, folder / f"{name}-{mode}.{ending}", palette)


def setup(app: Any) -> dict[str, Any]:
    app.connect("builder-inited", lambda _: draw())
    return {"parallel_read_safe": True}


if __name__ == "__main__":
    draw(ending="png")
