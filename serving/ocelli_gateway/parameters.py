"""The older `parameters` document: the fields of classify as one JSON object. It must not know what the fields mean.

What it holds is given on as the texts that the same fields would have been as parts of a form, so that both are read alike.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from ocelli_gateway.refusals import ParameterError

_NAMES = {"url": "url", "classifier_ids": "classifier_ids", "owners": "owners", "owner": "owners", "threshold": "threshold"}
"""Keys of the document, and their fields."""
_TEXTS = "a text or a list of texts"
_KINDS = {"url": "a text", "classifier_ids": _TEXTS, "owners": _TEXTS, "threshold": "a number, or a text that holds one"}
"""The allowed values of each field."""
_REMEDY = 'give an object such as {"threshold": 0.5}'
_WRAPPER = "parameters"
_BYTE_ORDER_MARK = "\ufeff"
"""Editors on Windows write it at the beginning of a text."""


class _Number(str):
    """A number as text: the field checks its value."""


def parse_parameters(texts: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """The names and texts of the fields in the last document; empty where there is no document.

    Raises:
        ParameterError: it is not a JSON object, or a value has the wrong type.
    """
    return tuple(_read_fields(_parse_object(texts[-1]))) if texts else ()


def _parse_object(text: str) -> dict[str, Any]:
    try:
        # The last value of a repeated key counts, as in every JSON parser.
        text = text.removeprefix(_BYTE_ORDER_MARK)
        document = json.loads(text, parse_int=_Number, parse_float=_Number, parse_constant=_refuse_constant)
    except RecursionError as error:
        raise ParameterError('The field "parameters" is nested too deeply; give one object of a few fields.') from error
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise ParameterError(f'The field "parameters" is not JSON at {where}; {_REMEDY}.') from error
    except ValueError as error:
        # One of those below.
        raise ParameterError(f'The field "parameters" is not JSON: {error}; {_REMEDY}.') from error
    if isinstance(document, dict) and _WRAPPER in document:
        document = document[_WRAPPER]
    if not isinstance(document, dict):
        raise ParameterError('The field "parameters" is not a JSON object; give one such as {"threshold": 0.5}.')
    return document


def _read_fields(document: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for key, name in _NAMES.items():
        value = document.get(key)
        if value is None:
            continue
        is_list = isinstance(value, list) and name in ("classifier_ids", "owners")
        for item in value if is_list else [value]:
            if not isinstance(item, str) or (isinstance(item, _Number) and name != "threshold"):
                raise ParameterError(f'The field "parameters" has a value of the wrong type for "{key}"; give {_KINDS[name]}.')
            try:
                item.encode()
            except UnicodeEncodeError as error:
                message = (
                    f'The field "parameters" has a value for "{key}" that is not Unicode text; remove the lone surrogates.'
                )
                raise ParameterError(message) from error
            yield name, str(item)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a number in JSON")
