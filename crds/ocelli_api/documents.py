"""Documents in camel case, as Kubernetes and the object store hold them, read into and built from frozen dataclasses.

A field is declared once, in its dataclass: its key follows from its name, and its type and default from the declaration. This
module must not know what any field means.

Reading tolerates other releases: a key without a field is ignored, and null counts as a missing key.
"""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field
from enum import Enum
from functools import cache, partial
from typing import Any, TypeVar

_ACRONYMS = {"id": "ID", "cpu": "CPU"}
_KEY = "key"
_CONVERT = "convert"

T = TypeVar("T")
Convert = Callable[[Any], Any]


class DocumentError(ValueError):
    """A document does not fit its dataclass. The message begins with the path of the field, such as `classes[1].name`."""

    def __init__(self, path: str, fault: str) -> None:
        super().__init__(f"{path}: {fault}")
        self.path = path
        self.fault = fault

    @classmethod
    def at(cls, place: str, error: Exception) -> DocumentError:
        """An error about the value at a key or an index, as an error about the document around it."""
        if not isinstance(error, DocumentError):
            return cls(place, str(error))
        joint = "" if error.path.startswith("[") else "."
        return cls(f"{place}{joint}{error.path}", error.fault)


def named(key: str) -> Mapping[str, Any]:
    """Metadata of a field whose key does not follow from its name."""
    return {_KEY: key}


def read_by(convert: Convert) -> Mapping[str, Any]:
    """Metadata of a field that `convert` reads: where it returns None, the key counts as missing.

    For values that other programs may get wrong and that the rest of the document does not depend on.
    """
    return {_CONVERT: convert}


def parse_fields(cls: type[T], document: Mapping[str, Any]) -> T:
    """Type a document; a field whose key is missing gets its default.

    Raises:
        DocumentError: a required key is missing, or a value has another type than its field.
        TypeError: the document is not an object.
    """
    parsed: T = _parser(cls)(document)
    return parsed


def build_document(value: Any, *, omit_defaults: bool = False) -> dict[str, Any]:
    """The document of a dataclass, without fields that are None and, on request, without those at their defaults."""
    document: dict[str, Any] = _builder(type(value), omit_defaults)(value)
    return document


def _document_key(field: Field[Any]) -> str:
    """`target_cpu_utilization` is `targetCPUUtilization`."""
    first, *others = field.name.split("_")
    return field.metadata.get(_KEY) or first + "".join(_ACRONYMS.get(word, word.capitalize()) for word in others)


def _is_required(field: Field[Any]) -> bool:
    return field.default is MISSING and field.default_factory is MISSING


def _make_builder(cls: Any, omit_defaults: bool) -> Convert:
    hints = typing.get_type_hints(cls)
    rows = [
        (
            field.name,
            _document_key(field),
            field.default if field.default_factory is MISSING else field.default_factory(),
            _find_builder(hints[field.name], omit_defaults),
        )
        for field in dataclasses.fields(cls)
    ]

    def build(value: Any) -> dict[str, Any]:
        document = {}
        for name, key, default, convert in rows:
            item = getattr(value, name)
            if item is None or (omit_defaults and item == default):
                continue
            document[key] = item if convert is None else convert(item)
        return document

    return build


def _find_builder(hint: Any, omit_defaults: bool) -> Convert | None:
    """What turns the value of a field into JSON; None if it is JSON already."""
    hint = _without_none(hint)
    if typing.get_origin(hint) is tuple:
        convert = _find_builder(typing.get_args(hint)[0], omit_defaults)
        return list if convert is None else lambda items: [convert(item) for item in items]
    if typing.get_origin(hint) is not None:
        return dict
    if dataclasses.is_dataclass(hint):
        return _builder(hint, omit_defaults)
    # A `str` field may contain a member of a StrEnum.
    return str if issubclass(hint, str) else None


def _make_parser(cls: Any) -> Convert:
    hints = typing.get_type_hints(cls)
    fields = {
        _document_key(field): (field.name, *_find_reader(hints[field.name], field.metadata.get(_CONVERT)))
        for field in dataclasses.fields(cls)
    }
    required = [(field.name, _document_key(field)) for field in dataclasses.fields(cls) if _is_required(field)]

    def parse(document: Any) -> Any:
        values, key = {}, ""
        entries = _check_mapping(document).items()
        try:
            for key, value in entries:
                if value is None or key not in fields:
                    continue
                name, kind, convert = fields[key]
                converted = value if type(value) is kind else convert(value)
                if converted is not None:
                    values[name] = converted
        except (TypeError, ValueError, OverflowError) as error:
            raise DocumentError.at(key, error) from error
        for name, key in required:
            if name not in values:
                raise DocumentError(key, "is missing")
        return cls(**values)

    return parse


def _without_none(hint: Any) -> Any:
    """`str` for `str | None`."""
    return typing.get_args(hint)[0] if typing.get_origin(hint) is types.UnionType else hint


def _find_reader(hint: Any, convert: Convert | None = None) -> tuple[type | None, Convert]:
    """The type of values that need no conversion, and what converts other values except null.

    It raises TypeError, ValueError or OverflowError.
    """
    if convert is not None:
        return None, convert
    hint = _without_none(hint)
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is tuple:
        _, convert = _find_reader(arguments[0])
        return None, _build_list_parser(convert, None if arguments[-1] is Ellipsis else len(arguments))
    if origin is not None:
        return dict, _check_mapping
    if dataclasses.is_dataclass(hint):
        return None, _parser(hint)
    return _SCALARS[hint] if hint in _SCALARS else (None, partial(_parse_member, hint))


def _build_list_parser(convert: Convert, length: int | None) -> Convert:
    def parse(items: Any) -> Any:
        if not isinstance(items, list | tuple):
            raise TypeError("is not a list")
        if length not in (None, len(items)):
            raise ValueError(f"has {len(items)} values instead of {length}")
        found: list[Any] = []
        try:
            for item in items:
                found.append(convert(item))
        except (TypeError, ValueError, OverflowError) as error:
            raise DocumentError.at(f"[{len(found)}]", error) from error
        return tuple(found)

    return parse


def _parse_member(enumeration: type[Enum], value: Any) -> Enum:
    try:
        return enumeration(value)
    except ValueError:
        raise ValueError(f"has the unknown value {json.dumps(value)}") from None


def _check_mapping(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise TypeError("is not an object")
    return value


def _check_text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"is {value!r} instead of a text")
    return value


def _check_number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        raise TypeError(f"is {value!r} instead of a number") from None


def _check_whole_number(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float) or value % 1 != 0:
        raise TypeError(f"is {value!r} instead of a whole number")
    return value


_SCALARS: Mapping[Any, tuple[type, Convert]] = {
    str: (str, _check_text),
    int: (int, _check_whole_number),
    float: (float, _check_number),
    bool: (bool, bool),
}

# Made once for each class. The annotations are for mypy, to which classes are not hashable.
_parser: Callable[[Any], Convert] = cache(_make_parser)
_builder: Callable[[Any, bool], Convert] = cache(_make_builder)
