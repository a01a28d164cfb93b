"""Fields of JSON bodies: the values of one JSON object. Each has its schema and its parser.

A key that no field has is refused, because a misspelled `dry_run` would otherwise change what it should only have shown. It
must not know what the values are used for.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from ocelli_gateway.fields import Schema, shown
from ocelli_gateway.refusals import ParameterError

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, eq=False)
class BodyField(Generic[T]):
    """One field of a JSON body."""

    name: str
    schema: Schema
    description: str
    parse: Callable[[Any], T]
    """Gets the JSON value; None where it was left out or is null. Raises ParameterError."""
    required: bool = False
    example: Any = None


@dataclass(frozen=True, kw_only=True)
class SentBody:
    """The JSON body of a request."""

    fields: Sequence[BodyField[Any]]
    values: Mapping[str, Any]

    def read(self, field: BodyField[T]) -> T:
        """The value of a field.

        Raises:
            ParameterError: it is missing or not allowed.
            KeyError: the operation does not declare the field.
        """
        if field not in self.fields:
            raise KeyError(f"the operation does not declare the field {field.name}")
        value = self.values.get(field.name)
        if value is None and field.required:
            raise ParameterError(f'The field "{field.name}" of the body is missing.')
        return field.parse(value)


def parse_body(content: bytes, fields: Sequence[BodyField[Any]]) -> SentBody:
    """The body of a request; an empty one is an empty object.

    Raises:
        ParameterError: it is not a JSON object, or has a key that no field has.
    """
    try:
        document = json.loads(content) if content.strip() else {}
        # Half of a surrogate pair, escaped, is JSON but not Unicode text.
        json.dumps(document, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise ParameterError("The body has a text that is not Unicode; remove the lone surrogates.") from error
    except (ValueError, RecursionError) as error:
        where = f" at line {error.lineno}, column {error.colno}" if isinstance(error, json.JSONDecodeError) else ""
        raise ParameterError(f"The body is not JSON{where}; send one JSON object.") from error
    if not isinstance(document, dict):
        raise ParameterError("The body is not a JSON object; send one object with the fields of the operation.")
    names = [field.name for field in fields]
    unknown = next((key for key in document if key not in names), None)
    if unknown is not None:
        allowed = f"use {', '.join(names)}" if names else "send none"
        raise ParameterError(f'The body has the unknown field "{shown(unknown)}"; {allowed}.')
    return SentBody(fields=tuple(fields), values=document)
