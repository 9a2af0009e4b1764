"""What the demo points to is there; `make demo` itself takes minutes."""

import re

from tests.scripts import ROOT


def test_the_heading_that_it_names_is_the_readmes() -> None:
    (heading,) = re.findall(r"README\.md, '(.+?)'", (ROOT / "tools" / "demo.py").read_text())
    assert f"\n## {heading}\n" in (ROOT / "README.md").read_text()
