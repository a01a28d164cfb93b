"""The OpenAPI document: generated from the parsers, valid, and correct for the answers to generated requests."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiohttp.abc import AbstractResolver, ResolveResult
from jsonschema_rs import Draft202012Validator
from schemathesis.specs.openapi.definitions import OPENAPI_31_VALIDATOR

from ocelli_gateway.fields import THRESHOLD, SentFields
from ocelli_gateway.management_schemas import MANAGEMENT_SCHEMAS
from ocelli_gateway.operations import CLASSIFY, GET_CLASSIFIER
from ocelli_gateway.quality_schemas import QUALITY_SCHEMAS
from ocelli_gateway.schemas import SCHEMAS
from tests.contract.contract_rows import CONTRACT
from tests.gateway_harness.images import png
from tests.gateway_harness.stage import OTHER_KEY, PASSWORD, USER, GatewayInstance, Stage
from tests.gateway_harness.v3_client import TWO_SETS, VERSION, V3Client, basic, connect

EXAMPLES_AN_OPERATION = 60
SCHEMATHESIS = Path(sys.executable).with_name("schemathesis")
CHECKS = (
    "not_a_server_error",
    "ignored_auth",
    "unsupported_method",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
)


@pytest.fixture(scope="module")
def document(gateway: GatewayInstance) -> Any:
    return httpx.get(f"{gateway.address}/openapi.json").json()


def test_document_is_served_without_credentials(gateway: GatewayInstance) -> None:
    response = httpx.get(f"{gateway.address}/openapi.json")
    assert (response.status_code, response.headers["content-type"], response.json()["openapi"]) == (
        200,
        "application/json",
        "3.1.0",
    )


def test_document_has_every_operation_of_the_contract(document: Any) -> None:
    table = re.findall(r"^\| `([A-Z]+) (/[^`]+)` \|", CONTRACT.read_text(), re.MULTILINE)
    described = {(method.upper(), path) for path, item in document["paths"].items() for method in item}
    assert len(table) == 10
    assert set(table) <= described


def test_document_has_no_operations_that_do_not_exist(document: Any, gateway: GatewayInstance) -> None:
    for path, item in document["paths"].items():
        for method in item:
            response = httpx.request(method.upper(), gateway.address + path.replace("{classifier_id}", "none_1"))
            assert response.status_code in (400, 401), (method, path)


def test_document_is_valid_openapi(document: Any) -> None:
    assert [error.message for error in OPENAPI_31_VALIDATOR.iter_errors(document)] == []


def test_examples_of_fields_fit_their_schemas(document: Any) -> None:
    checked = 0
    for item in document["paths"].values():
        for operation in item.values():
            for parameter in operation.get("parameters", []):
                if "example" in parameter:
                    Draft202012Validator(parameter["schema"]).validate(parameter["example"])
                    checked += 1
    assert checked > 20


def test_parts_with_arbitrary_names_are_described(document: Any) -> None:
    form = document["paths"]["/v3/classifiers"]["post"]["requestBody"]["content"]["multipart/form-data"]["schema"]
    (pattern,) = form["patternProperties"]
    names = {"owl_positive_examples": True, "_positive_examples": False, "a*b_positive_examples": False, "owl": False}
    assert {name: re.fullmatch(pattern, name) is not None for name in names} == names


def test_every_way_to_authenticate_is_described(document: Any) -> None:
    schemes = document["components"]["securitySchemes"].values()
    assert [(item["type"], item.get("scheme") or item["in"]) for item in schemes] == [
        ("http", "basic"),
        ("http", "bearer"),
        ("apiKey", "query"),
        ("apiKey", "query"),
    ]
    assert document["paths"]["/identity/token"]["post"]["security"] == []


def test_field_that_an_operation_does_not_declare_cannot_be_read() -> None:
    sent = SentFields(path={}, query=(("threshold", "0.5"),), headers=())
    assert CLASSIFY.read(sent, THRESHOLD) == 0.5
    with pytest.raises(KeyError, match="getClassifier does not declare the field threshold"):
        GET_CLASSIFIER.read(sent, THRESHOLD)


def test_every_reference_has_a_target(document: Any) -> None:
    for name in re.findall(r'"#/components/schemas/(\w+)"', json.dumps(document)):
        assert name in document["components"]["schemas"]


def test_no_two_schemas_have_the_same_name(document: Any) -> None:
    assert len(document["components"]["schemas"]) == len(SCHEMAS) + len(MANAGEMENT_SCHEMAS) + len(QUALITY_SCHEMAS)


def test_examples_of_answers_fit_their_schemas(document: Any) -> None:
    checked = 0
    for item in document["paths"].values():
        for operation in item.values():
            for answer in operation["responses"].values():
                for content in answer.get("content", {}).values():
                    if "example" in content:
                        schema = {**content["schema"], "components": document["components"]}
                        Draft202012Validator(schema).validate(content["example"])
                        checked += 1
    assert checked > 20


@dataclass(frozen=True, kw_only=True)
class Call:
    """A request, its operation in the document, and the expected answer."""

    method: str
    path: str
    status: int
    send: Callable[[V3Client], httpx.Response]


UNKNOWN = {"classifier_ids": "none_1"}
CALLS = {
    "create": Call(method="post", path="/v3/classifiers", status=200, send=lambda client: client.create()),
    "create, refused": Call(method="post", path="/v3/classifiers", status=400, send=lambda client: client.create("")),
    "list": Call(method="get", path="/v3/classifiers", status=200, send=lambda client: client.http.get("/v3/classifiers")),
    "list, verbose": Call(
        method="get",
        path="/v3/classifiers",
        status=200,
        send=lambda client: client.http.get("/v3/classifiers", params={**VERSION, "verbose": "true"}),
    ),
    "details, training": Call(
        method="get",
        path="/v3/classifiers/{classifier_id}",
        status=200,
        send=lambda client: client.get(client.created()),
    ),
    "details, ready": Call(
        method="get", path="/v3/classifiers/{classifier_id}", status=200, send=lambda client: client.get(client.ready())
    ),
    "details, failed": Call(
        method="get", path="/v3/classifiers/{classifier_id}", status=200, send=lambda client: client.get(failed(client))
    ),
    "details, retrained": Call(
        method="get", path="/v3/classifiers/{classifier_id}", status=200, send=lambda client: client.get(retrained(client))
    ),
    "retrain": Call(
        method="post",
        path="/v3/classifiers/{classifier_id}",
        status=200,
        send=lambda client: client.retrain(client.ready(), TWO_SETS),
    ),
    "retrain, refused": Call(
        method="post",
        path="/v3/classifiers/{classifier_id}",
        status=400,
        send=lambda client: client.retrain(client.created(), TWO_SETS),
    ),
    "delete": Call(
        method="delete",
        path="/v3/classifiers/{classifier_id}",
        status=200,
        send=lambda client: client.delete(client.created()),
    ),
    "classify": Call(
        method="post",
        path="/v3/classify",
        status=200,
        send=lambda client: client.classify(("a.png", png()), ("b.txt", b"words"), classifier_ids=f"{client.ready()},default"),
    ),
    "classify, no image is good": Call(
        method="post",
        path="/v3/classify",
        status=400,
        send=lambda client: client.classify(("b.txt", b"words"), url="http://127.0.0.1/"),
    ),
    "classify, unknown": Call(
        method="post",
        path="/v3/classify",
        status=404,
        send=lambda client: client.classify(("a.png", png()), **UNKNOWN),
    ),
    "classify by URL, private": Call(
        method="get",
        path="/v3/classify",
        status=400,
        send=lambda client: client.http.get("/v3/classify", params={**VERSION, "url": "http://127.0.0.1/"}),
    ),
    "user data": Call(
        method="delete",
        path="/v3/user_data",
        status=202,
        send=lambda client: client.http.delete("/v3/user_data", params={**VERSION, "customer_id": "c"}),
    ),
    "token": Call(method="post", path="/identity/token", status=200, send=lambda client: token(client, OTHER_KEY)),
    "token, unknown key": Call(method="post", path="/identity/token", status=400, send=lambda client: token(client, "nobodys")),
}


def failed(client: V3Client) -> str:
    identity = client.created()
    client.stage.fail_training(identity, "too few examples")
    return identity


def retrained(client: V3Client) -> str:
    identity = client.ready()
    client.retrain(identity, TWO_SETS)
    client.stage.finish_training(identity, retrained_at="2018-04-02T09:00:00Z")
    return identity


def token(client: V3Client, api_key: str) -> httpx.Response:
    form = {"grant_type": "urn:ibm:params:oauth:grant-type:apikey", "apikey": api_key}
    return client.http.post("/identity/token", data=form)


@pytest.mark.parametrize("name", CALLS)
def test_answer_is_as_the_document_says(client: V3Client, document: Any, name: str) -> None:
    call = CALLS[name]
    response = call.send(client)
    assert response.status_code == call.status, response.text
    described = document["paths"][call.path][call.method]["responses"][str(call.status)]
    assert [header for header in described["headers"] if header not in response.headers] == []
    content = described["content"][response.headers["content-type"]]
    schema = {**content["schema"], "components": document["components"]}
    Draft202012Validator(schema, validate_formats=True).validate(response.json())


class _NoNames(AbstractResolver):
    """No name can be resolved: generated requests stay on this machine."""

    async def resolve(self, host: str, port: int = 0, family: Any = socket.AF_UNSPEC) -> list[ResolveResult]:
        raise OSError(None, f"{host} is not known")

    async def close(self) -> None:
        pass


@pytest.mark.timeout(280)
def test_generated_requests_get_answers_that_the_document_describes(stage: Stage) -> None:
    gateway = stage.start_gateway(resolver=_NoNames())
    connect(gateway, stage).ready("schemathesis")
    done = subprocess.run(
        [
            *(str(SCHEMATHESIS), "run", f"{gateway.address}/openapi.json", "--no-color"),
            *("--header", f"Authorization: {basic(USER, PASSWORD)}", "--checks", ",".join(CHECKS)),
            *("--phases", "examples,coverage,fuzzing", "--max-examples", str(EXAMPLES_AN_OPERATION)),
            # Its answer has no end; tests of the events compare it with the document.
            *("--exclude-operation-id", "streamEvents"),
            *("--seed", "1", "--generation-database", "none", "--suppress-health-check", "all", "--request-timeout", "30"),
        ],
        capture_output=True,
        text=True,
        timeout=270,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    counts = re.search(r"(\d+) generated, (\d+) passed", done.stdout)
    assert counts is not None, done.stdout
    assert int(counts[1]) == int(counts[2]) > 500
