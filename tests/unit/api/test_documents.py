"""Reading dataclasses from documents in camel case, and building documents from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import pytest

from ocelli_api.classifier import parse_classifier, parse_spec
from ocelli_api.documents import DocumentError, build_document, named, parse_fields, read_by


class Colour(StrEnum):
    RED = "Red"


@dataclass(frozen=True, kw_only=True)
class Wheel:
    diameter: float
    spoke_count: int = 32


@dataclass(frozen=True, kw_only=True)
class Bicycle:
    bicycle_id: str
    frame: str = field(default="steel", metadata=named("material"))
    colour: Colour | None = None
    wheels: tuple[Wheel, ...] = ()
    size: tuple[float, float] | None = None
    labels: Mapping[str, Any] = field(default_factory=dict)
    light: bool = False
    bell: str | None = field(default=None, metadata=read_by(lambda value: value if value == "loud" else None))


FULL = Bicycle(
    bicycle_id="b1",
    frame="carbon",
    colour=Colour.RED,
    wheels=(Wheel(diameter=28.0, spoke_count=24), Wheel(diameter=28.0)),
    size=(1.5, 0.5),
    labels={"owner": {"age": 7}},
    light=True,
    bell="loud",
)
DOCUMENT = {
    "bicycleID": "b1",
    "material": "carbon",
    "colour": "Red",
    "wheels": [{"diameter": 28.0, "spokeCount": 24}, {"diameter": 28.0, "spokeCount": 32}],
    "size": [1.5, 0.5],
    "labels": {"owner": {"age": 7}},
    "light": True,
    "bell": "loud",
}


def test_a_dataclass_becomes_a_document_and_back() -> None:
    assert build_document(FULL) == DOCUMENT
    assert parse_fields(Bicycle, DOCUMENT) == FULL


def test_a_document_has_only_json_types() -> None:
    document = build_document(FULL)
    assert (type(document["colour"]), type(document["wheels"]), type(document["labels"])) == (str, list, dict)


def test_fields_that_are_none_are_left_out() -> None:
    assert build_document(Bicycle(bicycle_id="b1")) == {
        "bicycleID": "b1",
        "material": "steel",
        "wheels": [],
        "labels": {},
        "light": False,
    }


def test_fields_at_their_defaults_are_left_out_on_request() -> None:
    bicycle = Bicycle(bicycle_id="b1", wheels=(Wheel(diameter=28.0),))
    assert build_document(bicycle, omit_defaults=True) == {"bicycleID": "b1", "wheels": [{"diameter": 28.0}]}


def test_missing_keys_and_nulls_give_defaults() -> None:
    document = {"bicycleID": "b1", **dict.fromkeys(("material", "colour", "wheels", "size", "labels", "light"))}
    assert parse_fields(Bicycle, document) == parse_fields(Bicycle, {"bicycleID": "b1"}) == Bicycle(bicycle_id="b1")


def test_keys_of_a_later_release_are_ignored() -> None:
    assert parse_fields(Bicycle, {"bicycleID": "b1", "gears": 21, "wheels": [{"diameter": 28, "tyre": "x"}]}) == Bicycle(
        bicycle_id="b1", wheels=(Wheel(diameter=28.0),)
    )


def test_a_value_that_its_reader_refuses_counts_as_missing() -> None:
    assert parse_fields(Bicycle, {"bicycleID": "b1", "bell": ["loud"]}).bell is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bicycleID": None}, "bicycleID: is missing"),
        ({"bicycleID": 7}, "bicycleID: is 7 instead of a text"),
        ({"colour": "Blue"}, 'colour: has the unknown value "Blue"'),
        ({"wheels": {}}, "wheels: is not a list"),
        ({"wheels": "two"}, "wheels: is not a list"),
        ({"wheels": [{"diameter": 28}, {}]}, r"wheels\[1\]\.diameter: is missing"),
        ({"wheels": [{"diameter": 28}, None]}, r"wheels\[1\]: is not an object"),
        ({"wheels": [{"diameter": "wide"}]}, r"wheels\[0\]\.diameter: is 'wide' instead of a number"),
        ({"wheels": [{"diameter": 28, "spokeCount": 1.5}]}, r"wheels\[0\]\.spokeCount: is 1.5 instead of a whole number"),
        ({"wheels": [{"diameter": 28, "spokeCount": True}]}, r"wheels\[0\]\.spokeCount: is True instead of a whole number"),
        ({"wheels": [{"diameter": 10**400}]}, r"wheels\[0\]\.diameter: int too large"),
        ({"size": [1.5]}, "size: has 1 values instead of 2"),
        ({"size": [1.5, None]}, r"size\[1\]: is None instead of a number"),
        ({"labels": []}, "labels: is not an object"),
    ],
)
def test_an_error_names_the_field(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DocumentError, match=f"^{message}"):
        parse_fields(Bicycle, {**DOCUMENT, **changes})


@pytest.mark.parametrize("document", [None, [], "text", 7], ids=str)
def test_anything_but_an_object_is_refused(document: Any) -> None:
    with pytest.raises(TypeError, match="is not an object"):
        parse_fields(Bicycle, document)


def test_the_error_of_a_classifier_names_the_field() -> None:
    spec = {"classes": [{"name": "beagle", "examples": [{"url": 7}]}], "training": {"accelerator": "TPU"}}
    manifest = {"metadata": {"namespace": "team-a", "name": "dogs"}, "spec": spec}
    with pytest.raises(DocumentError, match=r"^classes\[0\]\.examples\[0\]\.url: is 7"):
        parse_classifier(manifest)
    with pytest.raises(DocumentError, match=r"^classes: is missing, and so is pretrained"):
        parse_spec({})
