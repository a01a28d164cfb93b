"""Fields: the single values of requests. Each has the places where it may be, its schema, and its parser.

To add one: write its `parse`, which gets every value that is not blank, in order, and raises `ParameterError` for values that
are not allowed; then the `Field`; and name it in its operations (`operations`). It must not know what the values are used for.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from enum import StrEnum
from typing import Any, Generic, TypeAlias, TypeVar

from ocelli_api.classifier import DISPLAY_NAME_LIMIT
from ocelli_api.names import STEM_LIMIT, control_character_fault
from ocelli_gateway.languages import choose_language
from ocelli_gateway.parameters import parse_parameters
from ocelli_gateway.refusals import ParameterError
from ocelli_storage.archives import shown_name

T = TypeVar("T")
Schema: TypeAlias = Mapping[str, Any]
"""A JSON Schema (2020-12)."""
Pairs: TypeAlias = tuple[tuple[str, str], ...]

_SHOWN_CHARACTERS = 64
_VERSION = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", re.ASCII)
_NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]{1,4})?", re.ASCII)
_LIST_SUFFIX = re.compile(r"\[[0-9]{0,4}\]$", re.ASCII)
_NOT_BLANK = r"\S"
DEFAULT_THRESHOLD = 0.5
API_KEY_GRANT = "urn:ibm:params:oauth:grant-type:apikey"
REFRESH_TOKEN_GRANT = "refresh_token"
BASIC_GRANT = "client_credentials"
"""The credentials are in the header `Authorization: Basic`, as RFC 6749 has it for this grant type."""
_GRANTS = (API_KEY_GRANT, REFRESH_TOKEN_GRANT, BASIC_GRANT)


class Place(StrEnum):
    """Where a field may be, in the words of OpenAPI."""

    PATH = "path"
    QUERY = "query"
    HEADER = "header"
    FORM = "form"


@dataclass(frozen=True, kw_only=True, eq=False)
class Field(Generic[T]):
    """One field."""

    name: str
    places: tuple[Place, ...]
    """The first place that has a value wins."""
    schema: Schema
    description: str
    parse: Callable[[Sequence[str]], T]
    """Gets all values that are not blank; there are none where the field was left out. Raises ParameterError."""
    required: bool = False
    example: Any = None


@dataclass(frozen=True, kw_only=True)
class SentFields:
    """All values of a request except its files."""

    path: Mapping[str, str]
    query: Pairs
    headers: Pairs
    """Names in lower case."""
    form: Pairs = ()
    older: Pairs = ()
    """The fields of the older document `parameters`: they count in the place of the document, after separate fields there."""
    older_place: Place | None = None

    def read(self, field: Field[T]) -> T:
        """The value of a field. Raises ParameterError where it is not allowed."""
        return field.parse(self.texts(field.name, field.places))

    def texts(self, name: str, places: Iterable[Place]) -> list[str]:
        """The values of that name in the first of the places that has any; blank ones count as left out."""
        for place in places:
            found = [value for value in self._values(name, place) if value.strip()]
            if not found and place is self.older_place:
                found = [value for key, value in self.older if key == name and value.strip()]
            if found:
                return found
        return []

    def with_older(self, document: Field[Pairs]) -> SentFields:
        """The same fields with those of an older document. Raises ParameterError if it cannot be read."""
        for place in document.places:
            texts = self.texts(document.name, (place,))
            if texts:
                return replace(self, older=document.parse(texts), older_place=place)
        return self

    def _values(self, name: str, place: Place) -> Iterable[str]:
        match place:
            case Place.PATH:
                return (self.path[name],) if name in self.path else ()
            case Place.QUERY:
                return (value for key, value in self.query if plain_name(key) == name)
            case Place.HEADER:
                return (value for key, value in self.headers if key == name.lower())
            case Place.FORM:
                return (value for key, value in self.form if plain_name(key) == name)


def plain_name(name: str) -> str:
    """The name of a field without the `[]` or `[0]` that PHP, Rails and some libraries append to the names of lists."""
    return _LIST_SUFFIX.sub("", name)


def shown(text: str) -> str:
    """A value as messages show it."""
    return shown_name(text, _SHOWN_CHARACTERS)


def parse_last(texts: Sequence[str]) -> str:
    """The last value, trimmed; empty where there is none."""
    return texts[-1].strip() if texts else ""


def split_list(texts: Iterable[str]) -> tuple[str, ...]:
    """The items of comma-separated lists: trimmed, without empty ones and repeats."""
    items = (item.strip() for text in texts for item in text.split(","))
    return tuple(dict.fromkeys(item for item in items if item))


def parse_version(texts: Sequence[str]) -> str:
    """A calendar date."""
    if not texts:
        raise ParameterError('The query parameter "version" is missing; give a date such as 2018-03-19.')
    version = texts[-1]
    try:
        if not _VERSION.fullmatch(version):
            raise ValueError
        date.fromisoformat(version)
    except ValueError as error:
        message = f'The query parameter "version" is "{shown(version)}"; give a date such as 2018-03-19.'
        raise ParameterError(message) from error
    return version


def parse_name(texts: Sequence[str]) -> str:
    """The name of a new classifier, trimmed."""
    name = parse_last(texts)
    if not name:
        raise ParameterError('The field "name" is missing or blank; name the classifier.')
    if len(name) > DISPLAY_NAME_LIMIT:
        raise ParameterError(f'The field "name" has {len(name)} characters; at most {DISPLAY_NAME_LIMIT} are allowed.')
    # The contract allows white space, including tabs and line breaks; ids leave it out.
    fault = control_character_fault("".join(name.split()))
    if fault is not None:
        raise ParameterError(f'The field "name" {fault}.')
    return name


def parse_owners(texts: Sequence[str]) -> tuple[str, ...]:
    """`me` and `IBM`, in the order of the request; the default is `IBM`."""
    items = split_list(texts)
    known = {"ibm": "IBM", "me": "me"}
    wrong = next((item for item in items if item.lower() not in known), None)
    if wrong is not None:
        raise ParameterError(f'The field "owners" holds "{shown(wrong)}"; only IBM and me are allowed.')
    return tuple(dict.fromkeys(known[item.lower()] for item in items)) or ("IBM",)


def parse_threshold(texts: Sequence[str]) -> float:
    """A number from 0 to 1."""
    if not texts:
        return DEFAULT_THRESHOLD
    text = parse_last(texts)
    if not _NUMBER.fullmatch(text) or not 0.0 <= float(text) <= 1.0:
        raise ParameterError(f'The field "threshold" is "{shown(text)}"; give a number from 0 to 1.')
    return float(text)


def parse_verbose(texts: Sequence[str]) -> bool:
    """`true` or `false`, in any letter case."""
    text = parse_last(texts)
    if text.lower() not in ("", "true", "false"):
        raise ParameterError(f'The query parameter "verbose" is "{shown(text)}"; give true or false.')
    return text.lower() == "true"


def parse_suspend(texts: Sequence[str]) -> bool | None:
    """`true` or `false`, in any letter case; None where it was left out."""
    text = parse_last(texts)
    if text.lower() not in ("", "true", "false"):
        raise ParameterError(f'The field "suspend" is "{shown(text)}"; give true or false.')
    return text.lower() == "true" if text else None


def parse_customer_id(texts: Sequence[str]) -> str:
    """Not blank."""
    customer_id = parse_last(texts)
    if not customer_id:
        raise ParameterError(
            'The query parameter "customer_id" is missing or blank; name the customer whose data should be deleted.'
        )
    return customer_id


def parse_opt_out(texts: Sequence[str]) -> bool:
    """True for `true` and `1` only."""
    return parse_last(texts).lower() in ("true", "1")


def parse_metadata(texts: Sequence[str]) -> str | None:
    """The customer that `customer_id=…` names among the pairs of the header, or None."""
    for pair in (pair for text in texts for pair in text.split(";")):
        key, _, value = pair.partition("=")
        if key.strip().lower() == "customer_id" and value.strip():
            return value.strip()
    return None


def parse_grant_type(texts: Sequence[str]) -> str:
    """The kind of credentials in a token request."""
    grant_type = parse_last(texts)
    if grant_type not in _GRANTS:
        raise ParameterError(f'The field "grant_type" must be {API_KEY_GRANT}, {REFRESH_TOKEN_GRANT} or {BASIC_GRANT}.')
    return grant_type


_TEXT: Schema = {"type": "string"}
_FORM_OR_QUERY = (Place.FORM, Place.QUERY)

VERSION = Field(
    name="version",
    places=(Place.QUERY,),
    schema={"type": "string", "format": "date"},
    description="A date, `YYYY-MM-DD`. Any valid date is accepted, with the same behaviour.",
    parse=parse_version,
    required=True,
    example="2018-03-19",
)
CLASSIFIER_ID = Field(
    name="classifier_id",
    places=(Place.PATH,),
    schema={"type": "string", "pattern": rf"^[A-Za-z0-9]{{1,{STEM_LIMIT}}}_[0-9]{{1,10}}$"},
    description="Id of a classifier, as create returned it. Ids are case-sensitive; the answer to unknown ids is 404.",
    # Not trimmed: an id with blanks is a different id.
    parse=lambda texts: texts[-1] if texts else "",
    required=True,
    example="birds_1471823042",
)
NAME = Field(
    name="name",
    places=(Place.FORM,),
    schema={"type": "string", "minLength": 1, "maxLength": DISPLAY_NAME_LIMIT, "pattern": _NOT_BLANK},
    description="Name of the classifier, for display. It need not be unique; surrounding blanks are trimmed.",
    parse=parse_name,
    required=True,
    example="birds",
)
VERBOSE = Field(
    name="verbose",
    places=(Place.QUERY,),
    schema={"type": "boolean", "default": False},
    description="Whether the list has the details of each classifier.",
    parse=parse_verbose,
)
URL = Field(
    name="url",
    places=_FORM_OR_QUERY,
    schema={"type": "string"},
    description=(
        "`http` or `https` address of one image of at most 10 MB: GIF, JPEG, PNG or TIFF. Addresses in private networks are "
        "not fetched. A failure is an error of the image, not of the request."
    ),
    parse=parse_last,
    example="https://example.org/owl.jpg",
)
CLASSIFIER_IDS = Field(
    name="classifier_ids",
    places=_FORM_OR_QUERY,
    schema={"type": "array", "items": _TEXT},
    description="Custom and built-in classifiers (`default`, `food`, `explicit`), comma-separated. Overrides `owners`.",
    parse=split_list,
    example=["birds_1471823042", "default"],
)
OWNERS = Field(
    name="owners",
    places=_FORM_OR_QUERY,
    schema={"type": "array", "items": {"type": "string", "enum": ["IBM", "me"]}, "default": ["IBM"]},
    description="Comma-separated: `IBM` means `default`, `me` means all own classifiers that can answer.",
    parse=parse_owners,
)
THRESHOLD = Field(
    name="threshold",
    places=_FORM_OR_QUERY,
    schema={"type": "number", "minimum": 0, "maximum": 1, "default": DEFAULT_THRESHOLD},
    description="Classes with at least this score are returned.",
    parse=parse_threshold,
)
ACCEPT_LANGUAGE = Field(
    name="Accept-Language",
    places=(Place.HEADER,),
    schema=_TEXT,
    description=(
        "Language of the class names of built-in classifiers: `en`, `ar`, `de`, `es`, `fr`, `it`, `ja`, `ko`, `pt-br`, `zh-cn` "
        "or `zh-tw`, or a list of languages as browsers send it. Without a translation the names are English."
    ),
    parse=lambda texts: choose_language(",".join(texts)),
    example="de",
)
LEARNING_OPT_OUT = Field(
    name="X-Watson-Learning-Opt-Out",
    places=(Place.HEADER,),
    schema=_TEXT,
    description="`true` or `1`: the images are used for this training and then deleted; retraining is refused.",
    parse=parse_opt_out,
)
METADATA = Field(
    name="X-Watson-Metadata",
    places=(Place.HEADER,),
    schema=_TEXT,
    description=(
        "`customer_id={id}` ties the images to a customer, whose data can be deleted. Other pairs (split by `;`) are ignored."
    ),
    parse=parse_metadata,
    example="customer_id=abc",
)
SUSPEND = Field(
    name="suspend",
    places=_FORM_OR_QUERY,
    schema={"type": "boolean"},
    description=(
        "An addition to v3. `true`: only check the images, and train when it is set to `false`. In a retrain without images it "
        "changes nothing else. Left out: a new classifier is trained, and another one stays as it is."
    ),
    parse=parse_suspend,
    example=True,
)
CUSTOMER_ID = Field(
    name="customer_id",
    places=(Place.QUERY,),
    schema={"type": "string", "pattern": _NOT_BLANK},
    description="The customer whose data is deleted.",
    parse=parse_customer_id,
    required=True,
    example="abc",
)
GRANT_TYPE = Field(
    name="grant_type",
    places=(Place.FORM,),
    schema={"type": "string", "enum": list(_GRANTS)},
    description="The credentials in the request: an API key, a refresh token, or those of the header `Authorization: Basic`.",
    parse=parse_grant_type,
    required=True,
    example=API_KEY_GRANT,
)
API_KEY = Field(
    name="apikey",
    places=(Place.FORM,),
    schema=_TEXT,
    description="The API key, for that grant type.",
    parse=parse_last,
    example="the-api-key",
)
REFRESH_TOKEN = Field(
    name="refresh_token",
    places=(Place.FORM,),
    schema=_TEXT,
    description="The refresh token, for that grant type.",
    parse=parse_last,
)
PARAMETERS = Field(
    name="parameters",
    places=_FORM_OR_QUERY,
    schema={"type": "string", "contentMediaType": "application/json"},
    description=(
        "Older form of `url`, `classifier_ids`, `owners` and `threshold`: one JSON object. A separate field overrides "
        "the same one in it."
    ),
    parse=parse_parameters,
    example='{"classifier_ids": ["birds_1471823042"], "threshold": 0.1}',
)
