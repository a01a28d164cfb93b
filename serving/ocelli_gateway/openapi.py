"""The OpenAPI document: `operations` as OpenAPI 3.1 writes them. Nothing is said here that is not said there.

It must not know HTTP servers, nor how operations are carried out.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import version
from typing import Any

from ocelli_gateway.fields import Field, Place
from ocelli_gateway.management_schemas import MANAGEMENT_SCHEMAS
from ocelli_gateway.operation import FILE_TYPE, JSON_TYPE, Answer, FilePart, FormType, Operation
from ocelli_gateway.quality_schemas import QUALITY_SCHEMAS
from ocelli_gateway.schemas import SCHEMAS, reference
from ocelli_gateway.wire import TRANSACTION_HEADER

OPENAPI_VERSION = "3.1.0"
_FILE = {"type": "string", "format": "binary"}
_SECURITY_SCHEMES = {
    "basic": {
        "type": "http",
        "scheme": "basic",
        "description": "User name and password, or the user name `apikey` with an API key.",
    },
    "bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT", "description": "A token of `/identity/token`."},
    "api_key": {"type": "apiKey", "in": "query", "name": "api_key", "description": "For old clients."},
    "apikey": {"type": "apiKey", "in": "query", "name": "apikey", "description": "For older clients."},
}


def build_document(operations: Iterable[Operation], prefix: str) -> dict[str, Any]:
    """The document of these operations; `prefix` is the address below which they are served as well."""
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _build_operation(operation)
    return {
        "openapi": OPENAPI_VERSION,
        "info": {
            "title": "Ocelli",
            "description": "Custom visual recognition: train classifiers with your own images, and classify images with them.",
            "version": version("ocelli"),
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}, {"url": prefix}],
        "security": [{name: []} for name in _SECURITY_SCHEMES],
        "paths": paths,
        "components": {
            "schemas": {**SCHEMAS, **MANAGEMENT_SCHEMAS, **QUALITY_SCHEMAS},
            "securitySchemes": _SECURITY_SCHEMES,
            "headers": {
                "TransactionId": {
                    "description": "Names this exchange in the service's log.",
                    "required": True,
                    "schema": {"type": "string", "minLength": 1},
                }
            },
        },
    }


def _build_operation(operation: Operation) -> dict[str, Any]:
    built: dict[str, Any] = {"operationId": operation.name, "summary": operation.summary, "tags": [str(operation.tag)]}
    if operation.description:
        built["description"] = operation.description
    if operation.open:
        built["security"] = []
    parameters = [
        _build_parameter(field, place) for field in operation.fields for place in field.places if place is not Place.FORM
    ]
    if parameters:
        built["parameters"] = parameters
    if operation.forms:
        content = {str(form): _build_form(operation, form) for form in operation.forms}
        built["requestBody"] = {"required": operation.needs_form, "content": content}
    if operation.body:
        built["requestBody"] = {
            "required": any(field.required for field in operation.body),
            "content": {JSON_TYPE: {"schema": _build_body(operation)}},
        }
    if operation.zip_description is not None:
        content = {FILE_TYPE: {"schema": {**_FILE, "description": operation.zip_description}}}
        built["requestBody"] = {"required": True, "content": content}
    built["responses"] = {str(answer.status): _build_answer(answer) for answer in operation.answers}
    return built


def _build_parameter(field: Field[Any], place: Place) -> dict[str, Any]:
    parameter: dict[str, Any] = {
        "name": field.name,
        "in": str(place),
        "description": field.description,
        "required": field.required,
        "schema": field.schema,
    }
    if field.schema.get("type") == "array":
        # Comma-separated, as in a form.
        parameter["explode"] = False
    if field.example is not None:
        parameter["example"] = field.example
    return parameter


def _build_form(operation: Operation, form: FormType) -> dict[str, Any]:
    texts = [field for field in operation.fields if Place.FORM in field.places]
    properties: dict[str, Any] = {field.name: {**field.schema, "description": field.description} for field in texts}
    patterns: dict[str, Any] = {}
    encoding: dict[str, Any] = {field.name: {"style": "form", "explode": False} for field in texts if _is_list(field)}
    if form is FormType.MULTIPART:
        encoding = {}
        for part in operation.files:
            if part.names is not None:
                patterns[part.names] = {**_FILE, "description": part.description}
                continue
            properties[part.name] = _build_file(part)
            encoding[part.name] = {"contentType": ", ".join(part.media_types)}
    schema: dict[str, Any] = {"type": "object", "properties": properties}
    if patterns:
        schema["patternProperties"] = patterns
    required = [field.name for field in texts if field.required]
    if required:
        schema["required"] = required
    return {"schema": schema, **({"encoding": encoding} if encoding else {})}


def _build_body(operation: Operation) -> dict[str, Any]:
    properties = {field.name: {**field.schema, "description": field.description} for field in operation.body}
    schema: dict[str, Any] = {"type": "object", "properties": properties, "additionalProperties": False}
    required = [field.name for field in operation.body if field.required]
    if required:
        schema["required"] = required
    example = {field.name: field.example for field in operation.body if field.example is not None}
    if example:
        schema["examples"] = [example]
    return schema


def _build_file(part: FilePart) -> dict[str, Any]:
    built = {"type": "array", "items": _FILE} if part.repeats else _FILE
    return {**built, "description": part.description}


def _is_list(field: Field[Any]) -> bool:
    return field.schema.get("type") == "array"


def _build_answer(answer: Answer) -> dict[str, Any]:
    headers: dict[str, Any] = {TRANSACTION_HEADER: {"$ref": "#/components/headers/TransactionId"}}
    for name, meaning in answer.headers.items():
        headers[name] = {"description": meaning, "required": True, "schema": {"type": "string"}}
    content: dict[str, Any] = {"schema": _FILE if answer.schema is None else reference(answer.schema)}
    if answer.example is not None:
        content["example"] = answer.example
    return {"description": answer.description, "headers": headers, "content": {answer.media_type: content}}
