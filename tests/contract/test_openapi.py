"""The OpenAPI document: generated from what parses, valid, and true of every answer that generated requests get."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiohttp.abc import AbstractResolver, ResolveResult
from jsonschema_rs import Draft202012Validator
from schemathesis.specs.openapi.definitions import OPENAPI_31_VALIDATOR

from tests.contract.contract_rows import CONTRACT
from tests.unit.gateway.harness import PASSWORD, USER, GatewayInstance, Stage, basic, connect

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


def test_document_says_nothing_of_operations_that_are_not_there(document: Any, gateway: GatewayInstance) -> None:
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


def test_parts_of_any_name_are_described(document: Any) -> None:
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
    ]
    assert document["paths"]["/identity/token"]["post"]["security"] == []


def test_every_reference_leads_somewhere(document: Any) -> None:
    for name in re.findall(r'"#/components/schemas/(\w+)"', json.dumps(document)):
        assert name in document["components"]["schemas"]


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
