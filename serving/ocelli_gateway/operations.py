"""The operations of the API, as a table: what each may be sent and what it answers. Requests are read by it, and the OpenAPI
document is written from it, so that neither can say what the other does not.

To add an operation:

1. Its values: a `Field` in `fields` for each query parameter, header and text of the form that it reads.
2. Its bodies: a JSON Schema in `schemas` for each kind of answer that there is none for yet.
3. Itself: an `Operation` here.
4. Its handler in `app`: `handlers[OPERATION] = gateway.method`. What has no handler is neither routed nor documented.

A handler gets a `V3Request`: `v3.read(FIELD)` for a value (KeyError where the operation does not declare the field),
`space.receive_form(v3.request, v3.operation, EXAMPLES_LIMITS, tenant=v3.caller.namespace)` for a form, then
`v3.with_form(form).read(FIELD)`. It returns a response of Starlette, or raises what `errors` can translate. An operation that
is `open` needs no credentials; its handler gets an `OpenRequest`, which has no caller, and belongs to `open_handlers`.

This module must not know how operations are carried out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import Any

from ocelli_api.names import FORBIDDEN_CLASS_CHARACTERS
from ocelli_gateway import fields
from ocelli_gateway.fields import Field, Place, SentFields, T
from ocelli_gateway.uploads import UploadLimits
from ocelli_storage.archives import MEGABYTE

JSON_TYPE = "application/json"
FILE_TYPE = "application/octet-stream"
_PLACEHOLDER = re.compile(r"\\\{[a-z_]+\\\}")


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
    """Pattern (ECMA-262) of the names that are allowed, where `name` stands for many."""
    media_types: tuple[str, ...] = ("application/zip",)
    repeats: bool = False

    def matches(self, part_name: str) -> bool:
        """Whether a part of that name is one of these."""
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
    """Headers that it has beside those of every answer, with what they say."""
    example: Any = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Operation:
    """One operation. It also says which parts of its form are files and which are text."""

    name: str
    method: str
    path: str
    summary: str
    description: str = ""
    fields: tuple[Field[Any], ...]
    files: tuple[FilePart, ...] = ()
    forms: tuple[FormType, ...] = ()
    needs_form: bool = True
    answers: tuple[Answer, ...]
    open: bool = False
    """It takes no credentials and no version."""

    def is_file(self, name: str) -> bool:
        """Whether a part of the form is a file."""
        return any(part.matches(name) for part in self.files)

    def is_text(self, name: str) -> bool:
        """Whether a part of the form is a text field."""
        return any(item.name == fields.plain_name(name) and Place.FORM in item.places for item in self.fields)

    def read(self, sent: SentFields, field: Field[T]) -> T:
        """The value of one of its fields.

        Raises:
            ParameterError: it is missing or may not be so.
            KeyError: the operation declares no such field.
        """
        if field not in self.fields:
            raise KeyError(f"operation {self.name} declares no field {field.name}")
        return sent.read(field)

    def match(self, path: str) -> Mapping[str, str] | None:
        """The values in a path of this operation; None where the path is another one."""
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


EXAMPLES_LIMITS = UploadLimits(body_bytes=256 * MEGABYTE, file_bytes=100 * MEGABYTE)
CLASSIFY_LIMITS = UploadLimits(body_bytes=110 * MEGABYTE, file_bytes=100 * MEGABYTE, drops_others=True)
RETRY_AFTER = {"Retry-After": "Seconds after which to try again."}


def _refusal(status: int, error: str, error_id: str, description: str, headers: Mapping[str, str] | None = None) -> Answer:
    example = {"code": status, "error": error, "error_id": error_id}
    return Answer(status=status, description=description, schema="Error", headers=headers or {}, example=example)


UNAUTHORIZED = _refusal(
    401, "Unauthorized", "unauthorized", "No or wrong credentials.", {"WWW-Authenticate": "How to authenticate."}
)
BAD_REQUEST = _refusal(
    400,
    'The query parameter "version" is missing; give a date such as 2018-03-19.',
    "parameter_error",
    "A field is missing or wrong, or what was sent cannot be used.",
)
NOT_FOUND = _refusal(404, "Cannot find the classifier birds_1471823042.", "not_found", "There is no such classifier.")
CONFLICT = _refusal(
    409,
    "Classifier team-a/birds was made by a manifest and does not allow writes by REST; change the manifest.",
    "conflict",
    "The classifier was made by a manifest and does not allow writes by REST.",
)
TOO_LARGE = _refusal(
    413,
    "The request body is larger than 256 MB; send a smaller one.",
    "limit_exceeded",
    "More bytes than are read, or may be stored.",
)
TOO_MANY = _refusal(
    429, "Too many requests; try again in a second.", "limit_exceeded", "A limit is reached, or a queue is full.", RETRY_AFTER
)
UNAVAILABLE = _refusal(
    503,
    "The Kubernetes API does not answer as it should; try again.",
    "unavailable",
    "Something that the service rests on does not answer.",
    RETRY_AFTER,
)
ALWAYS = (UNAUTHORIZED, BAD_REQUEST, TOO_MANY, UNAVAILABLE)
"""Refusals that every operation with credentials may answer."""

CLASSIFIER_EXAMPLE = {
    "classifier_id": "birds_1471823042",
    "name": "birds",
    "owner": "7d9f0c5e-33c1-4f0e-9a6c-0b6a6f1d2c11",
    "status": "training",
    "core_ml_enabled": True,
    "created": "2018-04-02T08:15:07.204Z",
    "updated": "2018-04-02T08:15:07.204Z",
    "classes": [{"class": "heron"}, {"class": "owl"}],
}
_CLASSIFY_EXAMPLE = {
    "images": [
        {
            "classifiers": [
                {
                    "classifier_id": "birds_1471823042",
                    "name": "birds",
                    "classes": [{"class": "owl", "score": 0.871204}],
                }
            ],
            "image": "barn.jpg",
        }
    ],
    "images_processed": 1,
    "custom_classes": 1,
}
_BAD_IMAGE = "Invalid/corrupted image data. Supported: GIF, JPEG, PNG, TIFF, and ZIP."


def _image_refusal(status: int, error: str, error_id: str, description: str) -> Answer:
    return Answer(
        status=status,
        description=description,
        schema="ClassifyError",
        example={
            "code": status,
            "error": error,
            "error_id": error_id,
            "images": [
                {
                    "classifiers": [],
                    "image": "notes.txt",
                    "error": {"code": status, "description": error, "error_id": error_id},
                }
            ],
            "images_processed": 1,
            "custom_classes": 0,
        },
    )


_POSITIVE_EXAMPLES = FilePart(
    name="{class}_positive_examples",
    description="Zip of at least 10 images (JPEG or PNG) of the class that the part's name begins with. A part for each class.",
    names=rf"^[^{re.escape(FORBIDDEN_CLASS_CHARACTERS)}]{{1,128}}_positive_examples$",
)
_NEGATIVE_EXAMPLES = FilePart(
    name="negative_examples", description="Zip of at least 10 images (JPEG or PNG) that show none of the classes."
)
_IMAGE_TYPES = ("image/gif", "image/jpeg", "image/png", "image/tiff", "application/zip")
_IMAGES_FILES = tuple(
    FilePart(
        name=name,
        description="Image of at most 10 MB (GIF, JPEG, PNG or TIFF), or a zip of at most 20 of them and 100 MB.",
        media_types=_IMAGE_TYPES,
        repeats=True,
    )
    for name in ("images_file", "images_file[]")
)
_CLASSIFY_FIELDS = (
    fields.VERSION,
    fields.URL,
    fields.CLASSIFIER_IDS,
    fields.OWNERS,
    fields.THRESHOLD,
    fields.PARAMETERS,
    fields.ACCEPT_LANGUAGE,
)
_CLASSIFY_ANSWERS = (
    Answer(
        status=200,
        description="What the classifiers say of each image; images that cannot be used have an error instead.",
        schema="ClassifiedImages",
        example=_CLASSIFY_EXAMPLE,
    ),
    UNAUTHORIZED,
    _image_refusal(
        400,
        _BAD_IMAGE,
        "input_error",
        "A field is wrong, there is no image, none of the images can be used, or none of the classifiers is ready yet.",
    ),
    _image_refusal(
        404,
        "None of the requested classifier ids were found: birds_1",
        "not_found",
        "None of the classifiers is known, or no own one can answer.",
    ),
    _image_refusal(
        413,
        "The image is larger than 10 MB; scale it down or compress it more.",
        "limit_exceeded",
        "The request or every image is too large.",
    ),
    TOO_MANY,
    UNAVAILABLE,
)

CREATE_CLASSIFIER = Operation(
    name="createClassifier",
    method="POST",
    path="/v3/classifiers",
    summary="Create a classifier",
    description="Takes at least two example sets, one of them positive. The training goes on in the background.",
    fields=(fields.VERSION, fields.NAME, fields.LEARNING_OPT_OUT, fields.METADATA),
    files=(_POSITIVE_EXAMPLES, _NEGATIVE_EXAMPLES),
    forms=(FormType.MULTIPART,),
    answers=(
        Answer(status=200, description="It is stored, and training.", schema="Classifier", example=CLASSIFIER_EXAMPLE),
        *ALWAYS,
        TOO_LARGE,
    ),
)
LIST_CLASSIFIERS = Operation(
    name="listClassifiers",
    method="GET",
    path="/v3/classifiers",
    summary="List the classifiers",
    description="All own ones, in any status, oldest first. Built-in classifiers are not listed.",
    fields=(fields.VERSION, fields.VERBOSE),
    answers=(
        Answer(
            status=200,
            description="The classifiers; with `verbose` each as in its details.",
            schema="Classifiers",
            example={"classifiers": [{"classifier_id": "birds_1471823042", "name": "birds", "status": "ready"}]},
        ),
        *ALWAYS,
    ),
)
GET_CLASSIFIER = Operation(
    name="getClassifier",
    method="GET",
    path="/v3/classifiers/{classifier_id}",
    summary="Get a classifier",
    description="Cheap enough to be called every few seconds. Once it says `ready`, every replica uses what it shows.",
    fields=(fields.VERSION, fields.CLASSIFIER_ID),
    answers=(
        Answer(
            status=200,
            description="The classifier as it is now.",
            schema="Classifier",
            example={
                **CLASSIFIER_EXAMPLE,
                "status": "ready",
                "accuracy": 0.93,
                "accuracy_interval": {"lower": 0.874, "upper": 0.967},
            },
        ),
        *ALWAYS,
        NOT_FOUND,
    ),
)
UPDATE_CLASSIFIER = Operation(
    name="updateClassifier",
    method="POST",
    path="/v3/classifiers/{classifier_id}",
    summary="Retrain a classifier",
    description="Adds classes or images. What is served answers until the retraining is done; a later call replaces this one.",
    fields=(fields.VERSION, fields.CLASSIFIER_ID, fields.LEARNING_OPT_OUT, fields.METADATA),
    files=(_POSITIVE_EXAMPLES, _NEGATIVE_EXAMPLES),
    forms=(FormType.MULTIPART,),
    answers=(
        Answer(
            status=200,
            description="The images are stored; the classifier is retraining.",
            schema="Classifier",
            example={**CLASSIFIER_EXAMPLE, "status": "retraining"},
        ),
        *ALWAYS,
        NOT_FOUND,
        CONFLICT,
        TOO_LARGE,
    ),
)
DELETE_CLASSIFIER = Operation(
    name="deleteClassifier",
    method="DELETE",
    path="/v3/classifiers/{classifier_id}",
    summary="Delete a classifier",
    description="Its images and models go too; a training under way is cancelled.",
    fields=(fields.VERSION, fields.CLASSIFIER_ID),
    answers=(
        Answer(status=200, description="It is unknown from now on, on every replica.", schema="Empty", example={}),
        *ALWAYS,
        NOT_FOUND,
        CONFLICT,
    ),
)
CLASSIFY = Operation(
    name="classify",
    method="POST",
    path="/v3/classify",
    summary="Classify images",
    description="Images come as files, in zips, by URL, or all of these. Fields of the form win over those of the query.",
    fields=_CLASSIFY_FIELDS,
    files=_IMAGES_FILES,
    forms=(FormType.MULTIPART, FormType.URLENCODED),
    needs_form=False,
    answers=_CLASSIFY_ANSWERS,
)
CLASSIFY_URL = Operation(
    name="classifyUrl",
    method="GET",
    path="/v3/classify",
    summary="Classify an image by its URL",
    fields=_CLASSIFY_FIELDS,
    answers=_CLASSIFY_ANSWERS,
)
GET_CORE_ML_MODEL = Operation(
    name="getCoreMlModel",
    method="GET",
    path="/v3/classifiers/{classifier_id}/core_ml_model",
    summary="Download a classifier as a Core ML model",
    description="What is served, as a model specification with one image input; preprocessing is part of it.",
    fields=(fields.VERSION, fields.CLASSIFIER_ID),
    answers=(
        Answer(
            status=200,
            description="The file `{classifier_id}.mlmodel`.",
            media_type=FILE_TYPE,
            headers={"Content-Disposition": "Name of the file."},
        ),
        *ALWAYS,
        NOT_FOUND,
    ),
)
GET_ONNX_MODEL = Operation(
    name="getOnnxModel",
    method="GET",
    path="/v3/classifiers/{classifier_id}/onnx_model",
    summary="Download a classifier as an ONNX model",
    description="An addition to v3. What is served, with one image input; preprocessing is part of it.",
    fields=(fields.VERSION, fields.CLASSIFIER_ID),
    answers=(
        Answer(
            status=200,
            description="The file `{classifier_id}.onnx`.",
            media_type=FILE_TYPE,
            headers={"Content-Disposition": "Name of the file."},
        ),
        *ALWAYS,
        NOT_FOUND,
    ),
)
DELETE_USER_DATA = Operation(
    name="deleteUserData",
    method="DELETE",
    path="/v3/user_data",
    summary="Delete the data of a customer",
    description="Classifiers that were created for the customer, and images that came for them, also where there are none.",
    fields=(fields.VERSION, fields.CUSTOMER_ID),
    answers=(Answer(status=202, description="It is deleted within a minute.", schema="Empty", example={}), *ALWAYS),
)
WITHDRAWN: Mapping[str, str] = {
    "/v3/detect_faces": "Face detection",
    "/v3/collections": "Collections and similarity search",
    "/v3/recognize_text": "Text recognition",
}
"""Addresses of v3 that IBM withdrew, with what was there."""

CREATE_TOKEN = Operation(
    name="createToken",
    method="POST",
    path="/identity/token",
    summary="Swap an API key, or a refresh token, for a bearer token",
    fields=(fields.GRANT_TYPE, fields.API_KEY, fields.REFRESH_TOKEN),
    forms=(FormType.URLENCODED,),
    answers=(
        Answer(
            status=200,
            description="A token for the header `Authorization: Bearer`, and one that is swapped for the next pair.",
            schema="Token",
            example={
                "access_token": "eyJ...",
                "refresh_token": "eyJ...",
                "token_type": "Bearer",
                "expires_in": 3600,
                "expiration": 1522660507,
                "scope": "ibm openid",
            },
        ),
        Answer(
            status=400,
            description="The key is unknown, the refresh token not valid (`BXNIM0407E`), or the form is wrong.",
            schema="TokenError",
            example={
                "errorCode": "BXNIM0415E",
                "errorMessage": "Provided API key could not be found",
                "code": 400,
                "error": "Provided API key could not be found",
            },
        ),
        TOO_LARGE,
        TOO_MANY,
        UNAVAILABLE,
    ),
    open=True,
)
