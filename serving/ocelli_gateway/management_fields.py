"""Fields of the management API: values of paths and queries, and those of JSON bodies.

It must not know what the values are used for.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from ocelli_api.revision import REVISION_LENGTH
from ocelli_gateway.fields import Field, Place, shown
from ocelli_gateway.refusals import NotFoundError

SERVED = "served"
LATEST = "latest"
REVISION_PATTERN = f"[0-9a-f]{{{REVISION_LENGTH}}}"


def parse_revision(texts: Sequence[str]) -> str:
    """A revision, `served` or `latest`. Nothing else is an address of the API."""
    text = texts[-1] if texts else ""
    if text not in (SERVED, LATEST) and not re.fullmatch(REVISION_PATTERN, text):
        raise NotFoundError(f'There is no revision "{shown(text)}"; give 10 hex digits, served or latest.')
    return text


REVISION = Field(
    name="revision",
    places=(Place.PATH,),
    schema={"type": "string", "pattern": f"^({REVISION_PATTERN}|{SERVED}|{LATEST})$"},
    description="A revision of the classifier, or `served` for the one that answers, or `latest` for the current one.",
    parse=parse_revision,
    required=True,
    example=SERVED,
)
