"""Languages of class names, and which one a client wants. It must not know where translations are kept."""

from __future__ import annotations

import re

from ocelli_api.prediction import LANGUAGES

ENGLISH = "en"
_KNOWN = (ENGLISH, *LANGUAGES)
_RANGES_LIMIT = 50
_QUALITY = re.compile(r"\s*q\s*=\s*([01](?:\.[0-9]{0,3})?)\s*", re.IGNORECASE | re.ASCII)
# Whoever names a language without a country, or with one that has no translation of its own, gets the one that they can read.
_NEAREST = {"pt": "pt-br", "zh": "zh-cn"}
_TRADITIONAL_CHINESE = {"hant", "hk", "mo", "tw"}


def choose_language(accepted: str) -> str:
    """The language that an `Accept-Language` header asks for first among those that there are; English where it asks for none.

    Lists and weights are those of RFC 9110, section 12.5.4. What is malformed asks for nothing.
    """
    ranges: list[tuple[float, str]] = []
    for item in accepted.split(",")[:_RANGES_LIMIT]:
        tag, _, parameters = item.partition(";")
        quality = _QUALITY.fullmatch(parameters) if parameters else None
        weight = 1.0 if not parameters else float(quality[1]) if quality else 0.0
        language = _match(tag.strip().lower().replace("_", "-"))
        if language is not None and weight > 0:
            ranges.append((weight, language))
    # Of equal weights the first one counts.
    return max(ranges, key=lambda item: item[0], default=(1.0, ENGLISH))[1]


def _match(tag: str) -> str | None:
    if tag in _KNOWN:
        return tag
    primary, *others = tag.split("-")
    if primary == "zh" and _TRADITIONAL_CHINESE.intersection(others):
        return "zh-tw"
    nearest = _NEAREST.get(primary, primary)
    return nearest if nearest in _KNOWN else None
