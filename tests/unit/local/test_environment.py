"""Environment, command and arguments of a container, as its process gets them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ocelli_local.manifests import Manifest
from ocelli_local.process_node.environment import (
    ContainerConfigError,
    ContainerPaths,
    EnvironmentInput,
    NamedObjects,
    PathTranslation,
    PodNetwork,
    build_process_arguments,
    expand_references,
    referenced_objects,
)


def make_input(
    container: Manifest, *, objects: NamedObjects | None = None, mounts: dict[str, str] | None = None
) -> EnvironmentInput:
    container = {"name": "main", "command": ["run"], **container}
    return EnvironmentInput(
        pod={
            "metadata": {"name": "pod", "namespace": "team", "uid": "u-1", "labels": {"a/b": "c"}},
            "spec": {"nodeName": "local", "serviceAccountName": "robot", "containers": [container]},
        },
        container=container,
        network=PodNetwork(pod_address="127.5.1.1", host_address="127.5.0.1"),
        objects=objects or NamedObjects(),
        paths=ContainerPaths(
            mounts={path: Path(real) for path, real in (mounts or {}).items()},
            volumes={},
            termination_message=Path("/real/termination"),
        ),
        allocatable={"cpu": "4", "memory": "8Gi"},
        defaults={"PATH": "/venv/bin"},
    )


def env_of(*entries: Manifest, **fields: Any) -> dict[str, str]:
    return build_process_arguments(make_input({"env": list(entries), **fields})).env


@pytest.mark.parametrize(
    ("text", "expanded"),
    [
        ("$(A)", "1"),
        ("x$(A)y$(B)z", "x1y2z"),
        ("$$(A)", "$(A)"),
        ("$$$(A)", "$1"),
        ("$(UNKNOWN)", "$(UNKNOWN)"),
        ("$A ${A} $", "$A ${A} $"),
        ("$(A", "$(A"),
    ],
)
def test_references_expand_as_in_kubernetes(text: str, expanded: str) -> None:
    assert expand_references(text, {"A": "1", "B": "2"}) == expanded


def test_variable_refers_only_to_those_before_it() -> None:
    env = env_of({"name": "B", "value": "$(A)"}, {"name": "A", "value": "1"}, {"name": "C", "value": "$(A)"})
    assert (env["B"], env["C"]) == ("$(A)", "1")


def test_command_and_args_refer_to_declared_variables_only() -> None:
    given = make_input({"command": ["$(A)"], "args": ["$(A)", "$(PATH)"], "env": [{"name": "A", "value": "x"}]})
    assert build_process_arguments(given).argv == ["x", "x", "$(PATH)"]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("metadata.name", "pod"),
        ("metadata.namespace", "team"),
        ("metadata.uid", "u-1"),
        ("metadata.labels['a/b']", "c"),
        ("metadata.annotations['none']", ""),
        ("spec.nodeName", "local"),
        ("spec.serviceAccountName", "robot"),
        ("status.podIP", "127.5.1.1"),
        ("status.hostIP", "127.5.0.1"),
    ],
)
def test_field_reference_gives_the_pods_field(path: str, value: str) -> None:
    assert env_of({"name": "X", "valueFrom": {"fieldRef": {"fieldPath": path}}})["X"] == value


@pytest.mark.parametrize(
    ("resource", "divisor", "value"),
    [
        ("limits.cpu", None, "2"),
        ("limits.cpu", "1m", "1500"),
        ("limits.memory", "1Mi", "512"),
        ("requests.cpu", "1m", "250"),
        ("requests.memory", None, "536870912"),
    ],
)
def test_resource_reference_rounds_up_in_units_of_its_divisor(resource: str, divisor: str | None, value: str) -> None:
    resources = {"limits": {"cpu": "1500m", "memory": "512Mi"}, "requests": {"cpu": "250m"}}
    reference = {"resource": resource, **({"divisor": divisor} if divisor else {})}
    env = env_of({"name": "X", "valueFrom": {"resourceFieldRef": reference}}, resources=resources)
    assert env["X"] == value


def test_missing_limit_is_what_the_node_has() -> None:
    assert env_of({"name": "X", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}})["X"] == "4"


def test_env_wins_over_env_from() -> None:
    objects = NamedObjects(config_maps={"c": {"A": b"1", "B": b"2"}})
    given = make_input({"envFrom": [{"configMapRef": {"name": "c"}}], "env": [{"name": "A", "value": "own"}]}, objects=objects)
    env = build_process_arguments(given).env
    assert (env["A"], env["B"]) == ("own", "2")


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ({"secretKeyRef": {"name": "no", "key": "k"}}, 'secret "no" not found'),
        ({"configMapKeyRef": {"name": "c", "key": "no"}}, 'configmap "c" has no key "no"'),
        ({"fieldRef": {"fieldPath": "spec.nonsense"}}, "spec.nonsense"),
        ({"configMapKeyRef": {"name": "c", "key": "binary"}}, "not UTF-8"),
    ],
)
def test_reference_that_cannot_be_resolved_is_named(reference: Manifest, message: str) -> None:
    objects = NamedObjects(config_maps={"c": {"k": b"v", "binary": b"\xff"}})
    given = make_input({"env": [{"name": "X", "valueFrom": reference}]}, objects=objects)
    with pytest.raises(ContainerConfigError, match=message):
        build_process_arguments(given)


def test_optional_reference_that_is_missing_sets_no_variable() -> None:
    assert "X" not in env_of({"name": "X", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k", "optional": True}}})


@pytest.mark.parametrize(
    ("text", "translated"),
    [
        ("/data", "/real/data"),
        ("/data/", "/real/data/"),
        ("/data/x/y", "/real/data/x/y"),
        ("/data/inner/x", "/real/inner/x"),
        ("/database", "/database"),
        ("see /data", "see /data"),
        ("/dev/termination-log", "/real/termination"),
    ],
)
def test_paths_below_a_mount_are_translated(text: str, translated: str) -> None:
    mounts = {"/data": Path("/real/data"), "/data/inner": Path("/real/inner")}
    paths = ContainerPaths(mounts=mounts, volumes={}, termination_message=Path("/real/termination"))
    assert PathTranslation.for_container({}, paths).translate(text) == translated


def test_translation_reaches_env_command_and_args() -> None:
    given = make_input(
        {"command": ["/data/bin"], "args": ["/data/in"], "env": [{"name": "X", "value": "/data/out"}]},
        mounts={"/data": "/real"},
    )
    made = build_process_arguments(given)
    assert (made.argv, made.env["X"]) == (["/real/bin", "/real/in"], "/real/out")


def test_volumes_and_termination_file_are_in_the_environment() -> None:
    env = env_of()
    assert env["TERMINATION_MESSAGE_PATH"] == "/real/termination"
    assert json.loads(env["POD_VOLUMES"]) == {}


def test_referenced_objects_are_listed_once() -> None:
    container = {
        "envFrom": [{"secretRef": {"name": "s"}}, {"configMapRef": {"name": "c"}}],
        "env": [{"name": "X", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}],
    }
    assert referenced_objects([container]) == (["c"], ["s"])
