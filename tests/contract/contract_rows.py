"""The rows of the REST contract, as docs/v3-api.md has them: each table row, list item and paragraph with a bold beginning, and
each section that describes a call.

A row's id is its section and the words it begins with, such as `C2/create: name missing, blank or too long`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

CONTRACT = Path(__file__).resolve().parents[2] / "docs" / "v3-api.md"
ID_CHARACTERS = 60

_SECTION = re.compile(r"##+ ([0A-D][0-9.]*)\.? ")
_PART = re.compile(r"# Part ([A-D]):")
_ITEM = re.compile(r"(?:-|\d+\.) (.+)")
_BOLD = re.compile(r"\*\*([^*]+?)\*\*")


@dataclass(frozen=True, kw_only=True)
class ContractRow:
    """One row."""

    part: str
    """`0`, `A`, `B`, `C` or `D`."""
    identity: str


def read_contract_rows(text: str) -> tuple[ContractRow, ...]:
    """Every row of the contract, in its order. Raises ValueError where two have one id."""
    rows: list[ContractRow] = []
    section = ""
    is_table_body = False
    is_code = False
    for line in text.splitlines():
        if line.startswith("```"):
            is_code = not is_code
        if is_code or not line.strip():
            is_table_body = False
            continue
        heading = _SECTION.match(line) or _PART.match(line)
        if heading:
            section = heading[1].rstrip(".")
            if len(section) > 1 and section[0] in "0AB":
                rows.append(ContractRow(part=section[0], identity=section))
            continue
        if not section:
            continue
        if re.match(r"\|\s*-", line):
            is_table_body = True
            continue
        words = _row_words(line, is_table_body)
        if words:
            rows.append(ContractRow(part=section[0], identity=f"{section}/{_shortened(words)}"))
    identities = [row.identity for row in rows]
    twice = {identity for identity in identities if identities.count(identity) > 1}
    if twice:
        raise ValueError(f"rows of one id: {sorted(twice)}")
    return tuple(rows)


def _row_words(line: str, is_table_body: bool) -> str:
    """The words that a row begins with, without markup; empty where the line begins none."""
    item = _ITEM.match(line)
    bold = _BOLD.match(line)
    if line.startswith("|"):
        words = line.strip("| ").split(" | ")[0] if is_table_body else ""
    elif item:
        words = item[1]
    elif bold and bold[1][0].isupper():
        words = bold[1]
    else:
        words = ""
    return " ".join(re.sub(r"[*`]", "", words.replace("(our choice)", "")).split()).strip(" .:")


def _shortened(words: str) -> str:
    if len(words) <= ID_CHARACTERS:
        return words
    return words[:ID_CHARACTERS].rsplit(" ", 1)[0].rstrip(" ,;:")
