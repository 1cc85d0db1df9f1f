"""Formulas as MathML, which browsers draw themselves: no script, no font, no image.

`$…$` and `$$…$$` of Markdown become elements when a page is written, by docutils' own translator; a
command that it does not know fails the build with its line.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.errors import ExtensionError

if TYPE_CHECKING:
    from sphinx.application import Sphinx


def setup(app: Sphinx) -> None:
    """Makes MathML what the site draws formulas with."""
    app.add_html_math_renderer("mathml", (_inline, None), (_display, None))
    app.config.html_math_renderer = "mathml"


def drawn(tex: str, block: bool) -> str:
    """One formula as a MathML element, with a prime where docutils has an apostrophe."""
    try:
        made = str(tex2mathml(tex, as_block=block))
    except MathError as error:
        raise ExtensionError(f"formula {tex!r}: {error}") from error
    return made.replace("<mo>'</mo>", '<mi mathvariant="normal">\N{PRIME}</mi>')


def _inline(writer: Any, node: nodes.math) -> None:
    writer.body.append(drawn(node.astext(), block=False))
    raise nodes.SkipNode


def _display(writer: Any, node: nodes.math_block) -> None:
    writer.body.append(f'<div class="formula">{drawn(node.astext(), block=True)}</div>\n')
    raise nodes.SkipNode
