"""Fields of the operations about the quality of revisions: which judged images, in which order, and how many.

It must not know what the values are used for.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace

from ocelli_api.digests import is_digest
from ocelli_gateway.fields import Field, Place, parse_last, shown, split_list
from ocelli_gateway.judged_quality import ImageOrder
from ocelli_gateway.management_fields import DIGEST_SCHEMA, REVISION
from ocelli_gateway.refusals import ParameterError

NOTHING = "-"
"""None of the classes. No class can have this name."""
IMAGES_LIMIT = 500
DEFAULT_IMAGES = 100
THUMBNAILS_LIMIT = 60
"""In one answer: at most 5 MB, and normally 300 kB."""
_OFFSET_LIMIT = 10_000_000


def parse_class(texts: Sequence[str]) -> str | None:
    """The name of a class; empty for none of the classes; None where it was left out."""
    # As everywhere, an empty value is one that was left out.
    if not texts or not texts[-1]:
        return None
    return "" if texts[-1].strip() == NOTHING else texts[-1]


def parse_flag(name: str) -> Callable[[Sequence[str]], bool | None]:
    """A parser of `true` and `false`, in any letter case; None where it was left out."""

    def parse(texts: Sequence[str]) -> bool | None:
        text = parse_last(texts)
        if text.lower() not in ("", "true", "false"):
            raise ParameterError(f'The query parameter "{name}" is "{shown(text)}"; give true or false.')
        return text.lower() == "true" if text else None

    return parse


def parse_number(name: str, default: int, least: int, most: int) -> Callable[[Sequence[str]], int]:
    """A parser of a whole number from `least` to `most`."""

    def parse(texts: Sequence[str]) -> int:
        text = parse_last(texts)
        if not text:
            return default
        if not re.fullmatch("[0-9]{1,9}", text, re.ASCII) or not least <= int(text) <= most:
            raise ParameterError(f'The query parameter "{name}" is "{shown(text)}"; give a number from {least} to {most:,}.')
        return int(text)

    return parse


def parse_order(texts: Sequence[str]) -> ImageOrder:
    """One of the orders."""
    text = parse_last(texts)
    if text and text not in set(ImageOrder):
        raise ParameterError(f'The query parameter "sort" is "{shown(text)}"; give one of {", ".join(ImageOrder)}.')
    return ImageOrder(text) if text else ImageOrder.MOST_WRONG


def parse_digests(texts: Sequence[str]) -> tuple[str, ...]:
    """SHA-256 digests of images."""
    digests = split_list(texts)
    if not digests:
        raise ParameterError('The query parameter "image" is missing; give the SHA-256 of an image.')
    if len(digests) > THUMBNAILS_LIMIT:
        raise ParameterError(f"There are {len(digests)} images; ask for at most {THUMBNAILS_LIMIT} in one request.")
    wrong = next((digest for digest in digests if not is_digest(digest)), None)
    if wrong is not None:
        raise ParameterError(f'The query parameter "image" has "{shown(wrong)}"; give a SHA-256 in 64 lower-case hex digits.')
    return digests


OTHER_REVISION = replace(REVISION, name="other", description="The revision to compare with, as `revision`.", example="latest")
ACTUAL = Field(
    name="actual",
    places=(Place.QUERY,),
    schema={"type": "string", "minLength": 1},
    description=f"Only images of this class; `{NOTHING}`: only negative examples.",
    parse=parse_class,
    example="owl",
)
PREDICTED = Field(
    name="predicted",
    places=(Place.QUERY,),
    schema={"type": "string", "minLength": 1},
    description=f"Only images that are predicted as this class; `{NOTHING}`: as none of the classes.",
    parse=parse_class,
    example="heron",
)
WRONG = Field(
    name="wrong",
    places=(Place.QUERY,),
    schema={"type": "boolean", "default": False},
    description="`true`: only images with a wrong prediction.",
    parse=parse_flag("wrong"),
)
TEST = Field(
    name="test",
    places=(Place.QUERY,),
    schema={"type": "boolean"},
    description=(
        "`true`: only images of the classifier's own test set; `false`: only examples. Left out: those that the evaluation is "
        "about, which is the test set if there is one."
    ),
    parse=parse_flag("test"),
)
SORT = Field(
    name="sort",
    places=(Place.QUERY,),
    schema={"type": "string", "enum": [str(order) for order in ImageOrder], "default": str(ImageOrder.MOST_WRONG)},
    description=(
        "`most_wrong`: wrong images first, those with the most certain predictions before others; `class`: by actual class; "
        "`least_sure`: those whose two best answers are close first."
    ),
    parse=parse_order,
)
LIMIT = Field(
    name="limit",
    places=(Place.QUERY,),
    schema={"type": "integer", "minimum": 1, "maximum": IMAGES_LIMIT, "default": DEFAULT_IMAGES},
    description="How many images the answer has at most.",
    parse=parse_number("limit", DEFAULT_IMAGES, 1, IMAGES_LIMIT),
)
OFFSET = Field(
    name="offset",
    places=(Place.QUERY,),
    schema={"type": "integer", "minimum": 0, "maximum": _OFFSET_LIMIT, "default": 0},
    description="How many images to leave out before the first one, for further pages.",
    parse=parse_number("offset", 0, 0, _OFFSET_LIMIT),
)
IMAGES = Field(
    name="image",
    places=(Place.QUERY,),
    schema={
        "type": "array",
        "items": DIGEST_SCHEMA,
        "minItems": 1,
        "maxItems": THUMBNAILS_LIMIT,
    },
    description=f"SHA-256 of the bytes of images, comma-separated or repeated; at most {THUMBNAILS_LIMIT}.",
    parse=parse_digests,
    required=True,
    example=["9f" * 32],
)
