"""v3 classifier ids, names of objects, and rules for class names."""

from __future__ import annotations

import hashlib
import re
import unicodedata

STEM_LIMIT = 36
NUMBER_LIMIT = 2**31 - 1
FORBIDDEN_CLASS_CHARACTERS = "$*-{}\\|/'\"`[]"
FORBIDDEN_LABEL_CHARACTERS = "/"
"""It separates the names in a type hierarchy."""

_CLASSIFIER_ID = re.compile(r"[A-Za-z0-9]+_[0-9]{1,10}", re.ASCII)


def is_classifier_id(text: str) -> bool:
    """Whether the text has the form of a v3 `classifier_id`."""
    return _CLASSIFIER_ID.fullmatch(text) is not None


def build_stem(name: str) -> str:
    """The stem of an id: the name without white space, other characters outside `A-Za-z0-9` replaced by `x`, cut to 36."""
    kept = (character for character in name if not character.isspace())
    return "".join(character if character.isascii() and character.isalnum() else "x" for character in kept)[:STEM_LIMIT]


def build_classifier_id(name: str, number: int) -> str:
    """The v3 id of a classifier of that name; `number` is 1 to 2^31 - 1."""
    return f"{build_stem(name)}_{number}"


def build_object_name(classifier_id: str) -> str:
    """The name of the Classifier that the gateway creates for an id: `Dogs_19` becomes `dogs-19`."""
    return classifier_id.lower().replace("_", "-")


def customer_key(customer_id: str) -> str:
    """32 hex digits that replace a customer's id in labels and sources, because ids may be long, unusual or personal data."""
    return hashlib.sha256(customer_id.encode()).hexdigest()[:32]


def class_name_fault(name: str) -> str | None:
    """Why a class cannot have this name, as the end of a sentence, or None if it can."""
    return _name_fault(name, FORBIDDEN_CLASS_CHARACTERS)


def label_fault(label: str) -> str | None:
    """Like `class_name_fault`, for labels of pretrained networks, which may have hyphens and apostrophes."""
    return _name_fault(label, FORBIDDEN_LABEL_CHARACTERS)


def control_character_fault(name: str) -> str | None:
    """Which control character the name contains, as the end of a sentence, or None."""
    found = next((character for character in name if unicodedata.category(character) == "Cc"), None)
    return None if found is None else f"contains the control character U+{ord(found):04X}; leave it out"


def _name_fault(name: str, forbidden: str) -> str | None:
    if not name.strip():
        return "is empty; give the class a name"
    if len(name) > 128:
        return f"has {len(name)} characters; at most 128 are allowed"
    for character in name:
        if character in forbidden:
            return f"contains {character!r}; leave out the characters {' '.join(forbidden)}"
    return control_character_fault(name)
