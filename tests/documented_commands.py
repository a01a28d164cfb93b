"""The commands of the pages: the bash blocks below each heading of the second level."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
PAGES = ("README.md", "CONTRIBUTING.md", *sorted(f"docs/{path.name}" for path in (CHECKOUT / "docs").glob("*.md")))

_BLOCK = re.compile(r"^```bash\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def bash_blocks(page: str, title: str) -> list[str]:
    """The blocks of one section of a page, such as `docs/install.md`; "" is the text above its first heading."""
    return dict(sections_with_blocks(page))[title]


def sections_with_blocks(page: str) -> Iterator[tuple[str, list[str]]]:
    """The titles of a page's sections that have commands, each with its blocks."""
    above, *parts = re.split(r"^## ", (CHECKOUT / page).read_text(), flags=re.MULTILINE)
    for title, _, text in (("", "", above), *(part.partition("\n") for part in parts)):
        if blocks := _BLOCK.findall(text):
            yield title, blocks
