"""Equations as MathML, which browsers show by themselves: no script, and no font from elsewhere."""

from typing import Any

from docutils.nodes import SkipNode
from latex2mathml.converter import convert


def as_mathml(app: Any) -> None:
    """Has Sphinx write equations as MathML in HTML."""
    app.add_html_math_renderer("mathml", inline_renderers=(_inline, None), block_renderers=(_block, None))
    app.config.html_math_renderer = "mathml"


def _inline(translator: Any, node: Any) -> None:
    translator.body.append(convert(node.astext()))
    raise SkipNode


def _block(translator: Any, node: Any) -> None:
    translator.body.append(f'<div class="math">{convert(node.astext(), display="block")}</div>')
    raise SkipNode
