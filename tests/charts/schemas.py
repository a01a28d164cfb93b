"""JSON schemas of all kinds of an API server, including installed ones; and kubeconform, which validates manifests with them.

Otherwise kubeconform would download schemas. Those of a new release are published late, and those of Ocelli never.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ocelli_local import SyncClusterAccess
from tests.go_programs import GoProgram

KUBECONFORM = GoProgram(
    name="kubeconform",
    module_folder=Path(__file__).with_name("kubeconform"),
    package="github.com/yannh/kubeconform/cmd/kubeconform",
)
SCHEMA_PATH = "{{.Group}}/{{.ResourceAPIVersion}}/{{.ResourceKind}}.json"
"""Where kubeconform looks for a kind's schema. The core group is called `v1` there, as its version."""
DEFINITIONS = "_definitions.json"


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """kubeconform's result for some manifests."""

    valid: int
    refused: tuple[str, ...]
    """A message for each manifest that is invalid or of an unknown kind."""


def judge(kubeconform: Path, schemas: Path, manifests: str) -> Verdict:
    """Have kubeconform read a stream of YAML documents."""
    done = subprocess.run(
        [kubeconform, "-strict", "-summary", "-output", "json", "-schema-location", str(schemas / SCHEMA_PATH)],
        input=manifests,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    answer = json.loads(done.stdout)
    refused = tuple(f"{item['kind']} {item['name']}: {item['msg']}" for item in answer["resources"])
    summary = answer["summary"]
    assert summary["invalid"] + summary["errors"] == len(refused), answer
    assert summary["skipped"] == 0, answer
    assert (done.returncode == 0) == (not refused), done
    return Verdict(valid=summary["valid"], refused=refused)


def write_schemas(cluster: SyncClusterAccess, folder: Path) -> None:
    """Write a file for each kind and version; they share the definitions in the same folder."""
    for path in read(cluster, "/openapi/v3")["paths"]:
        if re.fullmatch(r"api/v1|apis/[^/]+/[^/]+", path):
            _prefix, *group, version = path.split("/")
            write_version(read(cluster, f"/openapi/v3/{path}"), group="".join(group), version=version, folder=folder)


def is_described(cluster: SyncClusterAccess, definition: Mapping[str, Any]) -> bool:
    """Whether the API server publishes the schema of a CustomResourceDefinition's kind yet; it takes a moment."""
    group, kind = definition["spec"]["group"], definition["spec"]["names"]["kind"]
    paths = [f"apis/{group}/{version['name']}" for version in definition["spec"]["versions"] if version["served"]]
    known = read(cluster, "/openapi/v3")["paths"]
    return all(path in known and kind in json.dumps(read(cluster, f"/openapi/v3/{path}")) for path in paths)


def write_version(description: Mapping[str, Any], *, group: str, version: str, folder: Path) -> None:
    """Write the kinds of one version of one group; `description` is an OpenAPI document of version 3."""
    below = folder / (group or version) / version
    below.mkdir(parents=True)
    definitions = {name: close(schema) for name, schema in description["components"]["schemas"].items()}
    (below / DEFINITIONS).write_text(json.dumps({"components": {"schemas": definitions}}))
    for name, schema in definitions.items():
        for kind in schema.get("x-kubernetes-group-version-kind", ()):
            if (kind["group"], kind["version"]) == (group, version):
                reference = f"{DEFINITIONS}#/components/schemas/{name}"
                (below / f"{kind['kind'].lower()}.json").write_text(json.dumps({"$ref": reference}))


def close(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The schema without room for fields that it does not name, which is what makes kubeconform's `-strict` strict.

    Conditions (`anyOf` and its like) stay as they are: they name only the fields that they are about.
    """
    closed = dict(schema)
    if "properties" in schema:
        closed["properties"] = {name: close(below) for name, below in schema["properties"].items()}
        if not schema.get("x-kubernetes-preserve-unknown-fields"):
            closed.setdefault("additionalProperties", False)
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), Mapping):
            closed[key] = close(schema[key])
    return closed


def read(cluster: SyncClusterAccess, path: str) -> Any:
    """The answer of the API server."""
    return json.loads(cluster.kubectl("get", "--raw", path).stdout)
