"""Languages of class names, and the choice of one for a client. It must not know where translations are stored."""

from __future__ import annotations

import re

from ocelli_api.prediction import LANGUAGES

ENGLISH = "en"
_KNOWN = (ENGLISH, *LANGUAGES)
_RANGES_LIMIT = 50
_QUALITY = re.compile(r"\s*q\s*=\s*([01](?:\.[0-9]{0,3})?)\s*", re.IGNORECASE | re.ASCII)
# A language without a country, or with a country that has no translation, gets the nearest translation.
_NEAREST = {"pt": "pt-br", "zh": "zh-cn"}
_TRADITIONAL_CHINESE = {"hant", "hk", "mo", "tw"}


def choose_language(accepted: str) -> str:
    """The preferred language of an `Accept-Language` header among the available ones; English where there is none.

    Lists and weights follow RFC 9110, section 12.5.4. Malformed items are ignored.
    """
    ranges: list[tuple[float, str]] = []
    for item in accepted.split(",")[:_RANGES_LIMIT]:
        tag, _, parameters = item.partition(";")
        quality = _QUALITY.fullmatch(parameters) if parameters else None
        weight = 1.0 if not parameters else float(quality[1]) if quality else 0.0
        language = _match(tag.strip().lower().replace("_", "-"))
        if language is not None and weight > 0:
            ranges.append((weight, language))
    # The first of equal weights wins.
    return max(ranges, key=lambda item: item[0], default=(1.0, ENGLISH))[1]


def _match(tag: str) -> str | None:
    if tag in _KNOWN:
        return tag
    primary, *others = tag.split("-")
    if primary == "zh" and _TRADITIONAL_CHINESE.intersection(others):
        return "zh-tw"
    nearest = _NEAREST.get(primary, primary)
    return nearest if nearest in _KNOWN else None
