"""The site: `make docs` builds it into build/site, with every warning an error.

Its source is the repository itself, so that reports, examples and recipes are pages of the site
and the links of every Markdown file are tested. Nothing is computed: numbers and figures are those
of committed files (`docs/pages`), and a page of the built site requests nothing from elsewhere.
"""

import sys
from pathlib import Path

from sphinx.application import Sphinx

sys.path.insert(0, str(Path(__file__).parent.parent))
import gradlab
from docs.pages import (
    commands,
    docstrings,
    findings,
    formulas,
    names,
    offline,
    tables,
    variables,
)

project = "gradlab"
version = release = gradlab.__version__

root_doc = "docs/index"
include_patterns = [
    "docs/**",
    "reports/*.md",
    "reports/**/*.md",
    "examples/*.md",
    "benchmarks/README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
]
exclude_patterns = [".*", "build", "dist", "runs", "tests"]

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
myst_heading_anchors = 4
myst_enable_extensions = ["attrs_inline", "colon_fence", "deflist", "dollarmath", "substitution"]
nb_execution_mode = "off"  # notebooks are committed with their outputs
default_role = "code"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints_format = "short"
napoleon_use_ivar = True
maximum_signature_line_length = 80
python_use_unqualified_type_names = True

html_theme = "furo"
html_title = "gradlab"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_js_files = ["claims.js"]
html_extra_path = ["entry"]  # build/site/index.html leads to the first page
html_copy_source = False
html_show_copyright = False


def setup(app: Sphinx) -> None:
    """Writes the generated pages before any source is read."""
    generated = Path(__file__).parent / "generated"
    generated.mkdir(exist_ok=True)
    commands.write(generated)
    names.write(generated)
    tables.write(generated)
    findings.write(generated)
    variables.write(generated)
    docstrings.setup(app)
    formulas.setup(app)
    offline.setup(app)
