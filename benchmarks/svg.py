"""Plain SVG with colours for light and dark pages: what the pictures of the benchmarks are made of.

A file brings its own paper, so that it can be read whichever way the page around it is.
"""

from html import escape

STYLE = """
text{font:12px system-ui,sans-serif;fill:#1f2328}.strong{font-weight:600}
.title{font-size:15px;font-weight:600}
.small{font-size:11px}.faint{fill:#59636e}.paper{fill:#fff}
line,polyline{stroke:#d1d9e0;fill:none}.axis{stroke:#59636e}
.first{fill:#0072b2}line.first,polyline.first{stroke:#0072b2;stroke-width:2;fill:none}
.second{fill:#d55e00}line.second,polyline.second{stroke:#d55e00;stroke-width:2;fill:none}
@media(prefers-color-scheme:dark){text{fill:#d7dae0}.faint{fill:#9198a1}.paper{fill:#131416}
line,polyline{stroke:#3d444d}.axis{stroke:#9198a1}
.first{fill:#56b4e9}line.first,polyline.first{stroke:#56b4e9}
.second{fill:#e69f00}line.second,polyline.second{stroke:#e69f00}}
"""


class Drawing:
    """Marks on a sheet of `width` by `height` points, y downwards; `kind` names classes of the style."""

    def __init__(self, width: float, height: float, meaning: str) -> None:
        self._parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" role="img">',
            f"<title>{escape(meaning)}</title>",
            f"<style>{STYLE}</style>",
            f'<rect class="paper" width="{width:g}" height="{height:g}" rx="6"/>',
        ]

    def text(self, x: float, y: float, words: str, kind: str = "", anchor: str = "start") -> None:
        self._parts.append(
            f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}" text-anchor="{anchor}">{escape(words)}</text>'
        )

    def line(self, start: tuple[float, float], end: tuple[float, float], kind: str = "") -> None:
        ends = f'x1="{start[0]:.1f}" y1="{start[1]:.1f}" x2="{end[0]:.1f}" y2="{end[1]:.1f}"'
        self._parts.append(f'<line {ends} class="{kind}"/>')

    def path(self, points: list[tuple[float, float]], kind: str) -> None:
        joined = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        self._parts.append(f'<polyline points="{joined}" class="{kind}"/>')

    def dot(self, x: float, y: float, kind: str) -> None:
        self._parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" class="{kind}"/>')

    def __str__(self) -> str:
        return "\n".join([*self._parts, "</svg>", ""])
