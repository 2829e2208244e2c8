"""The documentation site: ``sphinx-build -W -b html docs docs/_build`` (extra ``docs``)."""

import contextlib
import io
import os
import re
from unittest import mock

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

import ufbert
from ufbert import cli

project = "ufbert"
author = "The ufbert developers"
copyright = "The ufbert developers, Apache-2.0"
version = release = ufbert.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 4
suppress_warnings = ["ref.python"]  # names of attributes in docstrings are no links

html_theme = "furo"
html_title = f"ufbert {version}"
html_show_sphinx = False
html_theme_options = {
    "source_directory": "docs/",
    "light_css_variables": {"color-brand-primary": "#22577a", "color-brand-content": "#22577a"},
    "dark_css_variables": {"color-brand-primary": "#80ced7", "color-brand-content": "#80ced7"},
}
copybutton_exclude = ".linenos, .gp, .go"

autodoc_typehints = "none"  # the docstrings have shapes and units
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "undoc-members": False, "show-inheritance": False}
napoleon_google_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True


class Help(SphinxDirective):
    """``{ufbert-help} VERB``: what ``ufbert VERB --help`` prints."""

    required_arguments = 0
    optional_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Put the parser's own help into the page."""
        text = help_of(self.arguments[0] if self.arguments else None)
        block = nodes.literal_block(text, text, language="text")
        return [block]


def help_of(verb: str | None) -> str:
    """What ``ufbert VERB --help`` prints, or ``ufbert --help``, on a terminal of 100 columns."""
    out = io.StringIO()
    with mock.patch.dict(os.environ, COLUMNS="100"), contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):
        cli.main([verb, "--help"] if verb else ["--help"])
    return out.getvalue().strip()


def results_here(_app: Sphinx, _page: str, source: list[str]) -> None:
    """Let links to tables in ``bench/results/`` lead to the pages of this site that include them."""
    source[0] = re.sub(r"\]\(\.\./bench/results/([\w-]+\.md)", r"](results/\1", source[0])


def setup(app: Sphinx) -> None:
    """Register the directive and the rewriting of links."""
    app.add_directive("ufbert-help", Help)
    app.connect("source-read", results_here)
