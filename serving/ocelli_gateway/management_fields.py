"""Fields of the management API: values of paths and queries, and those of JSON bodies.

It must not know what the values are used for.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from ocelli_api.classifier import CLASS_NAME_LIMIT, CORRECTIONS_LIMIT, DISPLAY_NAME_LIMIT
from ocelli_api.digests import DIGEST_PATTERN, is_digest
from ocelli_api.names import class_name_fault
from ocelli_api.revision import REVISION_PATTERN
from ocelli_gateway import fields
from ocelli_gateway.body_fields import BodyField
from ocelli_gateway.corrections import RequestedCorrection
from ocelli_gateway.example_sets import NamedUpload
from ocelli_gateway.fields import Field, Place, Schema, shown
from ocelli_gateway.known_classifiers import may_exist
from ocelli_gateway.refusals import NotFoundError, ParameterError

SERVED = "served"
LATEST = "latest"
DIGEST_SCHEMA: Schema = {"type": "string", "pattern": f"^{DIGEST_PATTERN}$"}
_DIGESTS: Schema = {"type": "array", "items": DIGEST_SCHEMA}
_CLASS_NAME: Schema = {"type": "string", "minLength": 1, "maxLength": CLASS_NAME_LIMIT}


def parse_revision(texts: Sequence[str]) -> str:
    """A revision, `served` or `latest`. Nothing else is an address of the API."""
    text = texts[-1] if texts else ""
    if text not in (SERVED, LATEST) and not re.fullmatch(REVISION_PATTERN, text):
        raise NotFoundError(f'There is no revision "{shown(text)}"; give 10 hex digits, served or latest.')
    return text


def parse_digest(texts: Sequence[str]) -> str:
    """A SHA-256 in lower-case hex."""
    return _check_digest(texts[-1] if texts else "", "the address")


def parse_one_classifier_id(texts: Sequence[str]) -> str | None:
    """An id; None where it was left out."""
    return fields.parse_last(texts) or None


def _read_object(value: Any, where: str, names: Sequence[str]) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ParameterError(f"{where} is not an object; give one with {' and '.join(names)}.")
    unknown = next((key for key in value if key not in names), None)
    if unknown is not None:
        raise ParameterError(f'{where} has the unknown key "{shown(unknown)}"; use {" and ".join(names)}.')
    return value


def _read_list(value: Any, where: str) -> list[Any]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise ParameterError(f"{where} is not a list; give one.")
    return value


def _check_digest(value: Any, where: str) -> str:
    if not is_digest(value):
        raise ParameterError(f'The digest "{shown(str(value))}" in {where} is not a SHA-256 of 64 lower-case hex digits.')
    return value


def _parse_digests(value: Any, where: str) -> tuple[str, ...]:
    return tuple(_check_digest(item, where) for item in _read_list(value, where))


def parse_body_name(value: Any) -> str:
    """A name for display, as v3 takes it."""
    if not isinstance(value, str):
        raise ParameterError('The field "name" is not a text; name the classifier.')
    return fields.parse_name([value])


def parse_body_id(value: Any) -> str:
    """An id that a classifier can have."""
    if not isinstance(value, str) or not may_exist(value):
        raise ParameterError(
            f'The field "classifier_id" is "{shown(str(value))}", which no classifier can have; draw one with '
            "POST /ocelli/v1/uploads."
        )
    return value


def parse_body_revision(value: Any) -> str:
    """A revision by its digits: what a name such as `latest` means may have changed since it was looked at."""
    if not isinstance(value, str) or not re.fullmatch(REVISION_PATTERN, value):
        raise ParameterError(f'The field "revision" is "{shown(str(value))}"; give the 10 hex digits of a revision.')
    return value


def parse_class_uploads(value: Any) -> tuple[NamedUpload, ...]:
    """Classes with their uploads, in their order."""
    found: list[NamedUpload] = []
    seen: set[str] = set()
    for number, item in enumerate(_read_list(value, 'The field "classes"')):
        where = f"classes[{number}]"
        entry = _read_object(item, where, ("class", "uploads"))
        name = _check_class_name(entry.get("class"), where)
        if name in seen:
            raise ParameterError(f'The class "{shown(name)}" is in "classes" twice; name all its uploads once.')
        seen.add(name)
        uploads = dict.fromkeys(_parse_digests(entry.get("uploads"), f"{where}.uploads"))
        if not uploads:
            raise ParameterError(f'The class "{shown(name)}" has no uploads; name at least one.')
        found += [NamedUpload(class_name=name, sha256=digest) for digest in uploads]
    return tuple(found)


def parse_negative_uploads(value: Any) -> tuple[NamedUpload, ...]:
    """Uploads of negative examples."""
    digests = dict.fromkeys(_parse_digests(value, "negative_examples"))
    return tuple(NamedUpload(class_name=None, sha256=digest) for digest in digests)


def parse_upload_digests(value: Any) -> tuple[str, ...]:
    """Digests of uploads."""
    return _parse_digests(value, "uploads")


def parse_class_names(value: Any) -> tuple[str, ...]:
    """Names of classes. They need not exist."""
    names = _read_list(value, 'The field "classes"')
    if any(not isinstance(name, str) for name in names):
        raise ParameterError('The field "classes" has a value that is not a text; give the names of classes.')
    return tuple(dict.fromkeys(names))


def parse_corrections(value: Any) -> tuple[RequestedCorrection, ...]:
    """Corrections, in their order."""
    found: list[RequestedCorrection] = []
    for number, item in enumerate(_read_list(value, 'The field "corrections"')):
        where = f"corrections[{number}]"
        entry = _read_object(item, where, ("image", "class"))
        if "class" not in entry or not isinstance(entry["class"], str | None):
            raise ParameterError(
                f"{where} has no class; give its name, an empty text to drop the image, or null to restore it."
            )
        found.append(RequestedCorrection(image=_check_digest(entry.get("image"), f"{where}.image"), class_name=entry["class"]))
    if not found:
        raise ParameterError('The field "corrections" is empty; give at least one.')
    return tuple(found)


def _check_class_name(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise ParameterError(f"{where} has no class; give its name.")
    fault = class_name_fault(value)
    if fault is not None:
        raise ParameterError(f"The class name in {where} {fault}.")
    return value


def _parse_flag(name: str) -> Callable[[Any], bool]:
    def parse(value: Any) -> bool:
        if value is not None and not isinstance(value, bool):
            raise ParameterError(f'The field "{name}" is not true or false.')
        return bool(value)

    return parse


def _flag(name: str, description: str) -> BodyField[bool]:
    schema: Schema = {"type": "boolean", "default": False}
    return BodyField(name=name, schema=schema, description=description, parse=_parse_flag(name))


REVISION = Field(
    name="revision",
    places=(Place.PATH,),
    schema={"type": "string", "pattern": f"^({REVISION_PATTERN}|{SERVED}|{LATEST})$"},
    description="A revision of the classifier, or `served` for the one that answers, or `latest` for the current one.",
    parse=parse_revision,
    required=True,
    example=SERVED,
)
SHA256 = Field(
    name="sha256",
    places=(Place.PATH,),
    schema=DIGEST_SCHEMA,
    description="SHA-256 of the zip, in lower-case hex.",
    parse=parse_digest,
    required=True,
    example="b5" * 32,
)
ONE_CLASSIFIER_ID = Field(
    name="classifier_id",
    places=(Place.QUERY,),
    schema={"type": "string"},
    description="Only events of this classifier.",
    parse=parse_one_classifier_id,
    example="birds_1471823042",
)
NAME = BodyField(
    name="name",
    schema={"type": "string", "minLength": 1, "maxLength": DISPLAY_NAME_LIMIT},
    description="Name of the classifier, for display. It need not be unique; surrounding blanks are trimmed.",
    parse=parse_body_name,
    required=True,
    example="birds",
)
NEW_ID = BodyField(
    name="classifier_id",
    schema=fields.CLASSIFIER_ID.schema,
    description="The id that was drawn for it.",
    parse=parse_body_id,
    required=True,
    example="birds_1471823042",
)
NAMED_REVISION = BodyField(
    name="revision",
    schema={"type": "string", "pattern": f"^{REVISION_PATTERN}$"},
    description="The revision.",
    parse=parse_body_revision,
    required=True,
    example="0f3a9c1d2e",
)
CLASS_UPLOADS = BodyField(
    name="classes",
    schema={
        "type": "array",
        "items": {
            "type": "object",
            "properties": {"class": _CLASS_NAME, "uploads": {**_DIGESTS, "minItems": 1}},
            "required": ["class", "uploads"],
            "additionalProperties": False,
        },
    },
    description="Classes with the digests of their uploads.",
    parse=parse_class_uploads,
    example=[{"class": "heron", "uploads": ["b5" * 32]}, {"class": "owl", "uploads": ["0c" * 32]}],
)
NEGATIVE_UPLOADS = BodyField(
    name="negative_examples",
    schema=_DIGESTS,
    description="Digests of uploads of images that show none of the classes.",
    parse=parse_negative_uploads,
)
REMOVED_CLASSES = BodyField(
    name="classes",
    schema={"type": "array", "items": _CLASS_NAME},
    description=(
        "Classes to take away, with all their sources and test images. Images that corrections moved to them are not used any "
        "more: they do not go back to the classes of their sources."
    ),
    parse=parse_class_names,
    example=["heron"],
)
REMOVED_UPLOADS = BodyField(
    name="uploads",
    schema=_DIGESTS,
    description="Digests of uploads to take away from every class and from the negative examples.",
    parse=parse_upload_digests,
)
ALL_NEGATIVES = _flag("negative_examples", "`true`: take all negative examples away.")
SUSPEND = _flag("suspend", "`true`: only check the images, and train once it is resumed.")
DRY_RUN = _flag("dry_run", "`true`: only show what would happen.")
CORRECTIONS = BodyField(
    name="corrections",
    schema={
        "type": "array",
        "minItems": 1,
        "items": {
            "type": "object",
            "properties": {"image": DIGEST_SCHEMA, "class": {"type": ["string", "null"], "maxLength": CLASS_NAME_LIMIT}},
            "required": ["image", "class"],
            "additionalProperties": False,
        },
    },
    description=(
        "The class of each image; empty: the image is not used; null: the correction is removed. Of several for one image, the "
        f"last one counts. At most {CORRECTIONS_LIMIT} hold at the same time."
    ),
    parse=parse_corrections,
    required=True,
    example=[{"image": "9f" * 32, "class": "owl"}],
)
