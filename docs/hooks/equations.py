"""MkDocs hook: fences of LaTeX (```math), which GitHub sets by itself, are drawn into the page when the site is built.

matplotlib's own TeX draws them as outlines in the text's colour, so a page needs no script and no network for them.
"""

from __future__ import annotations

import html
from typing import Any

from matplotlib import rc_context
from matplotlib.path import Path
from matplotlib.textpath import TextPath
from mkdocs.config.defaults import MkDocsConfig

SIZE = 12  # points to an em in the drawing; the page has it in em, so it grows with the text
MARGIN = 1  # points around it
_LETTERS = {Path.MOVETO: "M", Path.LINETO: "L", Path.CURVE3: "Q", Path.CURVE4: "C", Path.CLOSEPOLY: "Z"}


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Have fences of the language math drawn."""
    fences = config["mdx_configs"]["pymdownx.superfences"]["custom_fences"]
    fences.append({"name": "math", "class": "equation", "format": drawn})
    return config


def drawn(source: str, language: str, css_class: str, options: Any, md: Any, **kwargs: Any) -> str:
    r"""A block of equations, one a line (GitHub wants `\\` between them), as HTML.

    Raises:
        ValueError: where an equation has what matplotlib's TeX doesn't know.
    """
    lines = [line.removesuffix("\\\\").strip() for line in source.splitlines()]
    return "".join(f'<div class="{css_class}">{svg(line)}</div>' for line in lines if line)


def svg(equation: str) -> str:
    """An equation's drawing, with its LaTeX for readers who hear it."""
    with rc_context({"mathtext.fontset": "cm"}):
        outlines = TextPath((0, 0), "$" + equation.replace(r"\frac", r"\dfrac") + "$", size=SIZE)  # as GitHub sets them
    box = outlines.get_extents().padded(MARGIN)
    steps = []
    for numbers, code in outlines.iter_segments(curves=True, simplify=False):
        upside_down = [f"{-number if place % 2 else number:.2f}" for place, number in enumerate(numbers)]
        steps.append(_LETTERS[code] + ("" if code == Path.CLOSEPOLY else " ".join(upside_down)))
    return (
        f'<svg role="img" aria-label="{html.escape(equation)}" xmlns="http://www.w3.org/2000/svg" '
        f'style="width: {box.width / SIZE:.2f}em; height: {box.height / SIZE:.2f}em" '
        f'viewBox="{box.x0:.2f} {-box.y1:.2f} {box.width:.2f} {box.height:.2f}">'
        f'<path fill="currentColor" d="{"".join(steps)}"/></svg>'
    )
