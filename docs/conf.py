"""Sphinx' settings for the documentation: `sphinx-build -W --keep-going -n docs docs/build/html`.

The package has to be installed: the reference is read off its docstrings, the table of knobs off its core,
and the pictures are drawn from runs of it, all at each build, so that none of them can grow old.
What does so lies in `_extensions`.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "_extensions"))

import adafactor

project = "adafactor"
author = "The adafactor maintainers"
project_copyright = author
version = release = adafactor.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "drawings",
    "equations",
    "tables",
]
exclude_patterns = ["build"]
myst_enable_extensions = ["attrs_block", "colon_fence", "dollarmath"]
myst_heading_anchors = 3
suppress_warnings = ["config.cache"]  # the pictures' functions are no values that a cache could hold

default_role = "code"  # what docstrings put between single backticks is code
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False
# What other projects document, and private classes.
nitpick_ignore_regex = [
    ("py:class", r"(numpy|collections|torch)\..*|LearningRate"),
    ("py:class", r"adafactor\.(engine|schedules\.formula|optimizer\.base|torch\.hooks)\..*"),
]

html_theme = "furo"
html_math_renderer = "mathml"
html_static_path = ["_static"]
html_css_files = ["pages.css"]
html_title = f"adafactor {version}"
html_show_sphinx = False
