"""Names of children."""

from __future__ import annotations

import pytest

from ocelli_api.pods import deployment_name
from ocelli_operator.manifests.metadata import JOB_NAME_LIMIT, job_name, job_names, service_name, workers_policy_name

REVISION = "0123456789"
LONGEST = "a" * 48


def test_a_job_is_named_after_classifier_revision_and_attempt() -> None:
    assert job_name(LONGEST, REVISION, 999) == f"{LONGEST}-{REVISION}-999"


@pytest.mark.parametrize("attempt", [1000, 10**6, 2**31])
def test_a_job_name_stays_within_the_limit_at_every_attempt(attempt: int) -> None:
    name = job_name(LONGEST, REVISION, attempt)
    assert len(name) <= JOB_NAME_LIMIT
    assert name.endswith(f"-{REVISION}-{attempt}")


def test_shortened_names_of_two_classifiers_differ() -> None:
    assert job_name(LONGEST[:-1] + "b", REVISION, 1000) != job_name(LONGEST, REVISION, 1000)


def test_names_of_an_indexed_jobs_pods_stay_within_the_limit() -> None:
    assert len(job_name(LONGEST, REVISION, 10**6, workers=16) + "-15") <= 63


@pytest.mark.parametrize("workers", [1, 2, 16])
def test_a_job_is_found_whatever_number_of_workers_it_has(workers: int) -> None:
    assert job_name(LONGEST, REVISION, 99, workers=workers) in job_names(LONGEST, REVISION, 99)


def test_other_children_of_the_longest_name_stay_within_the_limit() -> None:
    names = (deployment_name(LONGEST, REVISION), service_name(LONGEST), workers_policy_name(LONGEST))
    assert max(map(len, names)) <= 63
