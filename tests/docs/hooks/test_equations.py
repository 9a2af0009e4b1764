"""Equations as drawings, for pages without a script."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from tests import scripts
from tests.docs.pages import BLOCKS

equations = scripts.load("docs/hooks/equations.py")


@pytest.mark.slow
def test_an_equation_is_a_drawing_in_the_text_s_colour() -> None:
    drawing = equations.svg(r"a < \frac{b}{c}")
    root = ElementTree.fromstring(drawing)
    assert root.get("aria-label") == r"a < \frac{b}{c}"
    (outline,) = root
    assert outline.get("fill") == "currentColor"
    left, top, width, height = map(float, root.get("viewBox").split())
    numbers = [float(number) for number in re.findall(r"-?[\d.]+", outline.get("d"))]
    across, down = numbers[0::2], numbers[1::2]
    assert left <= min(across) <= max(across) <= left + width
    assert top <= min(down) <= max(down) <= top + height


def test_a_higher_equation_is_higher() -> None:
    heights = [float(re.search(r"height: ([\d.]+)em", equations.svg(text))[1]) for text in ("x", r"\frac{x}{y}")]
    assert heights[1] > 1.5 * heights[0]


def test_each_line_of_a_block_is_one() -> None:
    drawn = equations.drawn("a = b \\\\\nc = d\n", "math", "equation", {}, None)
    assert re.findall('aria-label="(.*?)"', drawn) == ["a = b", "c = d"]


@pytest.mark.slow
def test_every_equation_of_the_pages_can_be_drawn() -> None:
    texts = [block.text for block in BLOCKS if block.language == "math"]
    assert len(texts) > 5
    for text in texts:
        assert "<svg" in equations.drawn(text, "math", "equation", {}, None)
    with pytest.raises(ValueError, match="nosuchword"):
        equations.drawn(r"\nosuchword", "math", "equation", {}, None)
