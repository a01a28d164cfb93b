"""Argo CD and Flux report the correct health for every recorded state, with the interpreter and the library that they use."""

from __future__ import annotations

import copy
from enum import StrEnum
from typing import Any

import pytest
import yaml

from ocelli_api.classifier import Manifest
from ocelli_api.conditions import ReadyReason, ReconcilingReason, StalledReason
from tests.gitops.health_program import CHECKOUT, HEALTH_SCRIPT, Assessment, assess
from tests.gitops.states import (
    FAILED,
    OBJECTS_FOLDER,
    READY,
    STATES,
    build_health_message,
    build_health_test,
    find_condition,
    load_object,
)

ARGO_FOLDER = CHECKOUT / "deploy" / "gitops" / "argocd"
UPSTREAM_FOLDER = ARGO_FOLDER / "resource_customizations" / "ocelli.dev" / "Classifier"


@pytest.fixture(scope="module")
def assessments(health_program: None) -> dict[str, Assessment]:
    """By state."""
    return dict(zip(STATES, assess([load_object(state) for state in STATES]), strict=True))


@pytest.mark.parametrize("state", STATES)
def test_argo_cd_reports_the_health(assessments: dict[str, Assessment], state: str) -> None:
    assert assessments[state].argo.status == STATES[state].argo


@pytest.mark.parametrize("state", STATES)
def test_argo_cd_shows_the_message_of_the_condition(assessments: dict[str, Assessment], state: str) -> None:
    assert assessments[state].argo.message == build_health_message(state, load_object(state))


@pytest.mark.parametrize("state", STATES)
def test_kstatus_reports_the_status(assessments: dict[str, Assessment], state: str) -> None:
    assert assessments[state].kstatus.status == STATES[state].kstatus


@pytest.mark.parametrize(
    ("condition_type", "reasons"),
    [
        ("Ready", ReadyReason),
        ("Reconciling", ReconcilingReason),
        ("Stalled", StalledReason),
    ],
)
def test_an_object_is_recorded_with_every_reason(condition_type: str, reasons: type[StrEnum]) -> None:
    recorded = {find_condition(load_object(state), condition_type).get("reason") for state in STATES}
    # NoServerReady may be reported for a moment before RollingOut: `server-lost` is recorded with either reason. The others
    # need a GPU, and a backbone whose features have no bound.
    assert {str(reason) for reason in reasons} - recorded <= {"NoServerReady", "GPUOutOfMemory", "TrainingDiverged"}


def test_only_listed_states_are_recorded() -> None:
    assert {path.stem for path in OBJECTS_FOLDER.glob("*.yaml")} == STATES.keys()


def test_the_test_for_argo_cds_repository_says_the_same() -> None:
    assert yaml.safe_load((UPSTREAM_FOLDER / "health_test.yaml").read_text()) == build_health_test()


def test_the_test_for_argo_cds_repository_is_next_to_script_and_objects() -> None:
    assert (UPSTREAM_FOLDER / "health.lua").read_text() == HEALTH_SCRIPT.read_text()
    paths = [item["inputPath"] for item in build_health_test()["tests"]]
    assert [path for path in paths if not (UPSTREAM_FOLDER / path).is_file()] == []


def test_the_patch_of_argocd_cm_contains_the_script() -> None:
    patch = yaml.safe_load((ARGO_FOLDER / "argocd-cm-patch.yaml").read_text())
    assert patch["metadata"]["name"] == "argocd-cm"
    assert patch["data"] == {"resource.customizations.health.ocelli.dev_Classifier": HEALTH_SCRIPT.read_text()}


def without_status(classifier: Manifest) -> Manifest:
    del classifier["status"]
    return classifier


def without_conditions(classifier: Manifest) -> Manifest:
    del classifier["status"]["conditions"]
    return classifier


def with_every_status(classifier: Manifest, status: str) -> Manifest:
    for condition in classifier["status"]["conditions"]:
        condition["status"] = status
    return classifier


@pytest.mark.parametrize(
    ("changed", "argo"),
    [
        (without_status(load_object("ready")), "Progressing"),
        (without_conditions(load_object("ready")), "Progressing"),
        (with_every_status(load_object("ready"), "Unknown"), "Progressing"),
        (with_every_status(load_object("retraining-failed"), "Unknown"), "Progressing"),
    ],
    ids=["no status", "no conditions", "nothing known of a ready one", "nothing known of a stalled one"],
)
@pytest.mark.usefixtures("health_program")
def test_argo_cd_never_ends_a_wait_for_an_unknown_state(changed: Manifest, argo: str) -> None:
    assert assess([changed])[0].argo.status == argo


@pytest.mark.usefixtures("health_program")
@pytest.mark.parametrize("state", STATES)
def test_an_edit_makes_both_tools_wait_at_once(state: str) -> None:
    """Between the write of a spec and the operator's answer, no tool may use the conditions of the earlier spec."""
    edited: dict[str, Any] = copy.deepcopy(load_object(state))
    edited["metadata"]["generation"] += 1
    edited["metadata"].pop("deletionTimestamp", None)
    (assessed,) = assess([edited])
    assert (assessed.argo.status, assessed.kstatus.status) == ("Progressing", "InProgress")


def test_a_wait_ends_with_either_stalled_or_ready_and_never_while_reconciling() -> None:
    """kstatus looks at Reconciling first: an object that is Stalled and Reconciling would be waited for until the timeout."""
    for state, expected in STATES.items():
        conditions = load_object(state)["status"].get("conditions", [])
        true = {item["type"] for item in conditions if item["status"] == "True"}
        if expected in (READY, FAILED):
            assert len(true & {"Ready", "Stalled", "Reconciling"}) == 1, state
