"""Equations as MathML, which browsers draw themselves: the pages need no network and no script for them.

Docutils translates LaTeX; what it lacks is `\\texttt`, in which the equations name knobs.
"""

import re
from typing import Any

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml


def mathml(latex: str, as_block: bool = False) -> str:
    """LaTeX as a <math> element; text that stands between backticks in it is code."""
    latex = re.sub(r"\\texttt\{([^}]*)\}", r"\\text{`\1`}", latex)
    if "&" in latex:
        latex = rf"\begin{{aligned}}{latex}\end{{aligned}}"
    made = tex2mathml(latex, as_block)
    return re.sub(r"<mtext>`([^`]*)`</mtext>", r'<mtext class="code">\1</mtext>', made)


def visit_inline(writer: Any, node: nodes.math) -> None:
    writer.body.append(mathml(node.astext()))
    raise nodes.SkipNode


def visit_block(writer: Any, node: nodes.math_block) -> None:
    writer.body.append(f'<div class="equation">{mathml(node.astext(), as_block=True)}</div>\n')
    raise nodes.SkipNode


def setup(app: Any) -> dict[str, bool]:
    app.add_html_math_renderer("mathml", (visit_inline, None), (visit_block, None))
    return {"parallel_read_safe": True}
