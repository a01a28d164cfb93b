"""What an operation of the API is: its fields, the parts of its form, and its answers. `operations` has the operations.

It must not know how operations are carried out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import Any

from ocelli_gateway.body_fields import BodyField
from ocelli_gateway.fields import Field, Place, SentFields, T, plain_name

JSON_TYPE = "application/json"
FILE_TYPE = "application/octet-stream"
_PLACEHOLDER = re.compile(r"\\\{[a-z_]+\\\}")


class Tag(StrEnum):
    """Parts of the API."""

    V3 = "v3"
    """Visual Recognition v3, and its tokens."""
    MANAGEMENT = "management"
    """What people need in addition: for the console, the command line and clients."""


class FormType(StrEnum):
    """Media types of forms."""

    MULTIPART = "multipart/form-data"
    URLENCODED = "application/x-www-form-urlencoded"


@dataclass(frozen=True, kw_only=True)
class FilePart:
    """Parts of a form that are files."""

    name: str
    """The part's name; `{…}` stands for any text."""
    description: str
    names: str | None = None
    """Pattern (ECMA-262) of the allowed names, where `name` has a placeholder."""
    media_types: tuple[str, ...] = ("application/zip",)
    repeats: bool = False

    def matches(self, part_name: str) -> bool:
        """Whether a part of that name is one of these files."""
        return self._pattern.fullmatch(part_name) is not None

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        return re.compile(_PLACEHOLDER.sub(".*", re.escape(self.name)), re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One kind of answer of an operation."""

    status: int
    description: str
    schema: str | None = None
    """Name of the body's schema in `schemas`; None: bytes."""
    media_type: str = JSON_TYPE
    headers: Mapping[str, str] = field(default_factory=dict)
    """Its headers, except those of every answer, and their meaning."""
    example: Any = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Operation:
    """One operation. It decides which parts of its form are files and which are text."""

    name: str
    method: str
    path: str
    summary: str
    description: str = ""
    fields: tuple[Field[Any], ...]
    files: tuple[FilePart, ...] = ()
    forms: tuple[FormType, ...] = ()
    needs_form: bool = True
    body: tuple[BodyField[Any], ...] = ()
    """The fields of its JSON body; empty: it has none."""
    zip_description: str | None = None
    """Describes the zip that is its body, sent with any media type; None: its body is not a zip."""
    answers: tuple[Answer, ...]
    open: bool = False
    """It needs no credentials and no version."""
    tag: Tag = Tag.V3

    def is_file(self, name: str) -> bool:
        """Whether a part of the form is a file."""
        return any(part.matches(name) for part in self.files)

    def is_text(self, name: str) -> bool:
        """Whether a part of the form is a text field."""
        return any(item.name == plain_name(name) and Place.FORM in item.places for item in self.fields)

    def read(self, sent: SentFields, field: Field[T]) -> T:
        """The value of one of its fields.

        Raises:
            ParameterError: it is missing or not allowed.
            KeyError: the operation does not declare the field.
        """
        if field not in self.fields:
            raise KeyError(f"operation {self.name} does not declare the field {field.name}")
        return sent.read(field)

    def match(self, path: str) -> Mapping[str, str] | None:
        """The values in a path of this operation; None for other paths."""
        parts, sent = self.path.split("/"), path.split("/")
        if len(parts) != len(sent):
            return None
        values: dict[str, str] = {}
        for part, text in zip(parts, sent, strict=True):
            if part.startswith("{"):
                values[part.strip("{}")] = text
            elif part != text:
                return None
        return values
