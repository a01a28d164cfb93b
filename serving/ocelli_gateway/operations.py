"""The operations of the API, as a table: what each may be sent and what it answers. Requests are read by it, and the OpenAPI
document is written from it, so that the two cannot differ.

To add an operation:

1. Its values: a `Field` in `fields` for each query parameter, header and text of the form that it reads.
2. Its bodies: a JSON Schema in `schemas` for each kind of answer that has none yet.
3. The operation: an `Operation` here.
4. Its handler: a method of `Handlers` in `handlers`, and a row in `Handlers.by_operation`. An operation without a handler is
   neither routed nor documented.

A handler gets a `CallerRequest`: `v3.read(FIELD)` returns a value (KeyError where the operation does not declare the field),
`space.receive_form(v3.request, v3.operation, EXAMPLES_LIMITS, tenant=v3.tenant)` a form, then `v3.with_form(form).read(FIELD)`
a value of the form. It returns a response of Starlette, or raises an error that `errors` can answer. An operation that is
`open` needs no credentials: its handler gets an `OpenRequest`, which has no caller, and its row is in `Handlers.open`.

It must not know how operations are carried out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from ocelli_api.names import FORBIDDEN_CLASS_CHARACTERS
from ocelli_gateway import fields
from ocelli_gateway.errors import UnknownApiKeyError, answer_refusal
from ocelli_gateway.image_files import TOO_LARGE as IMAGE_TOO_LARGE
from ocelli_gateway.operation import FILE_TYPE, Answer, FilePart, FormType, Operation
from ocelli_gateway.refusals import (
    ConflictError,
    GatewayError,
    InputError,
    NotFoundError,
    ParameterError,
    TooLargeError,
    TooManyRequestsError,
    UnauthorizedError,
    UnavailableError,
)
from ocelli_gateway.uploads import UploadLimits
from ocelli_storage.archives import MEGABYTE
from ocelli_storage.image_file import INVALID_IMAGE

EXAMPLES_LIMITS = UploadLimits(body_bytes=256 * MEGABYTE, file_bytes=100 * MEGABYTE)
CLASSIFY_LIMITS = UploadLimits(body_bytes=110 * MEGABYTE, file_bytes=100 * MEGABYTE, drops_others=True)
_HEADERS = {"Retry-After": "Seconds after which to try again.", "WWW-Authenticate": "How to authenticate."}


def build_refusal(error: GatewayError, description: str, *, schema: str = "Error") -> Answer:
    """The answer to a request that fails with this error."""
    answer = answer_refusal(error)
    headers = {name: _HEADERS[name] for name in answer.headers}
    return Answer(status=answer.status, description=description, schema=schema, headers=headers, example=answer.body())


UNAUTHORIZED = build_refusal(UnauthorizedError(), "No or wrong credentials.")
BAD_REQUEST = build_refusal(
    ParameterError('The query parameter "version" is missing; give a date such as 2018-03-19.'),
    "A field is missing or wrong, or the data cannot be used.",
)
NOT_FOUND = build_refusal(NotFoundError("Cannot find the classifier birds_1471823042."), "There is no such classifier.")
CONFLICT = build_refusal(
    ConflictError(
        "Classifier team-a/birds was created from a manifest and does not allow changes by REST; change the manifest."
    ),
    "The classifier was created from a manifest and does not allow changes by REST.",
)
TOO_LARGE = build_refusal(
    TooLargeError("The request body is larger than 256 MB; send a smaller one."),
    "The request has more bytes than are read, or may be stored.",
)
TOO_MANY = build_refusal(
    TooManyRequestsError("Too many requests; try again in a second."),
    "A queue is full, or a quota is used up. Without `Retry-After`, waiting does not help: something has to be deleted first.",
)
UNAVAILABLE = build_refusal(
    UnavailableError("The Kubernetes API did not answer as expected; try again."),
    "Something that the service depends on does not answer.",
)
ALWAYS = (UNAUTHORIZED, BAD_REQUEST, TOO_MANY, UNAVAILABLE)
"""Refusals of every operation with credentials."""

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


def _image_refusal(error: GatewayError, description: str) -> Answer:
    code, message, error_id = answer_refusal(error).body().values()
    image_error = {"code": code, "description": message, "error_id": error_id}
    images = [{"classifiers": [], "image": "notes.txt", "error": image_error}]
    shown = type(error)(error.message, fields={"images": images, "images_processed": 1, "custom_classes": 0})
    return build_refusal(shown, description, schema="ClassifyError")


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
        description="The classes of each image; images that cannot be used have an error instead.",
        schema="ClassifiedImages",
        example=_CLASSIFY_EXAMPLE,
    ),
    UNAUTHORIZED,
    _image_refusal(
        InputError(INVALID_IMAGE),
        "A field is wrong, there is no image, none of the images can be used, or none of the classifiers is ready yet.",
    ),
    _image_refusal(
        NotFoundError("None of the requested classifier ids were found: birds_1"),
        "None of the classifiers is known, or none of the own ones can answer.",
    ),
    _image_refusal(TooLargeError(IMAGE_TOO_LARGE), "The request or every image is too large."),
    TOO_MANY,
    UNAVAILABLE,
)

CREATE_CLASSIFIER = Operation(
    name="createClassifier",
    method="POST",
    path="/v3/classifiers",
    summary="Create a classifier",
    description="Takes at least two example sets, one of them positive. The training runs in the background.",
    fields=(fields.VERSION, fields.NAME, fields.SUSPEND, fields.LEARNING_OPT_OUT, fields.METADATA),
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
    description="All classifiers of the caller, in any status, oldest first. Built-in classifiers are not listed.",
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
    description="Can be called every few seconds. Once the status is `ready`, every replica uses what the answer shows.",
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
    description="Adds classes or images. The served model answers until the retraining is done; a later call replaces this.",
    fields=(fields.VERSION, fields.CLASSIFIER_ID, fields.SUSPEND, fields.LEARNING_OPT_OUT, fields.METADATA),
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
    description="Its images and models are deleted too; a training in progress is cancelled.",
    fields=(fields.VERSION, fields.CLASSIFIER_ID),
    answers=(
        Answer(status=200, description="Every replica treats it as unknown from now on.", schema="Empty", example={}),
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
    description="Images can be files, zips, a URL, or all of these. Fields of the form override those of the query.",
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


def _download(name: str, address: str, suffix: str, summary: str, description: str) -> Operation:
    file = Answer(
        status=200,
        description=f"The file `{{classifier_id}}{suffix}`.",
        media_type=FILE_TYPE,
        headers={"Content-Disposition": "Name of the file."},
    )
    return Operation(
        name=name,
        method="GET",
        path=f"/v3/classifiers/{{classifier_id}}/{address}",
        summary=summary,
        description=description,
        fields=(fields.VERSION, fields.CLASSIFIER_ID),
        answers=(file, *ALWAYS, NOT_FOUND),
    )


GET_CORE_ML_MODEL = _download(
    "getCoreMlModel",
    "core_ml_model",
    ".mlmodel",
    "Download a classifier as a Core ML model",
    "The served model, as a model specification with one image input; it includes the preprocessing.",
)
GET_ONNX_MODEL = _download(
    "getOnnxModel",
    "onnx_model",
    ".onnx",
    "Download a classifier as an ONNX model",
    "An addition to v3. The served model, with one image input; it includes the preprocessing.",
)
GET_BILL_OF_MATERIALS = _download(
    "getBillOfMaterials",
    "bom",
    ".cdx.json",
    "Download what a classifier was made from",
    "An addition to v3. A CycloneDX 1.6 document of the served model: digests of sources, backbone, code and libraries, the "
    "recipe, and the kind of CPU.",
)
GET_REPORT = _download(
    "getReport",
    "report",
    ".html",
    "Download the report on a classifier's images",
    "An addition to v3. A page of HTML with what was found in the images: faults, duplicates, images that may have the wrong "
    "class, with thumbnails. It is the newest one: of a check (see `suspend`), or of a training, with its accuracy.",
)
DELETE_USER_DATA = Operation(
    name="deleteUserData",
    method="DELETE",
    path="/v3/user_data",
    summary="Delete the data of a customer",
    description="Classifiers that were created for the customer, and the customer's images. It also succeeds without any.",
    fields=(fields.VERSION, fields.CUSTOMER_ID),
    answers=(Answer(status=202, description="It is deleted within a minute.", schema="Empty", example={}), *ALWAYS),
)
WITHDRAWN: Mapping[str, str] = {
    "/v3/detect_faces": "Face detection",
    "/v3/collections": "Collections and similarity search",
    "/v3/recognize_text": "Text recognition",
}
"""Addresses of v3 that IBM withdrew, and their services."""

_TOKEN_ERROR = answer_refusal(UnknownApiKeyError()).body()
CREATE_TOKEN = Operation(
    name="createToken",
    method="POST",
    path="/identity/token",
    summary="Exchange an API key, a refresh token, or a password for a bearer token",
    fields=(fields.GRANT_TYPE, fields.API_KEY, fields.REFRESH_TOKEN),
    forms=(FormType.URLENCODED,),
    answers=(
        Answer(
            status=200,
            description="A token for the header `Authorization: Bearer`, and a refresh token for the next pair.",
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
            description=(
                "The key is unknown, the refresh token not valid (`BXNIM0407E`), the password wrong (`BXNIM0602E`), or the "
                "form is wrong."
            ),
            schema="TokenError",
            example=_TOKEN_ERROR,
        ),
        TOO_LARGE,
        TOO_MANY,
        UNAVAILABLE,
    ),
    open=True,
)
