"""Errors of the API server, distinguished by their message if code and reason are the same."""

from __future__ import annotations

import json

import pytest

from ocelli_cluster.client import AdmissionError, ApiError, ForbiddenError, InvalidError, QuotaError, _error


@pytest.mark.parametrize(
    ("status", "message", "kind"),
    [
        (403, 'pods "p" is forbidden: exceeded quota: q, requested: pods=1', QuotaError),
        (
            403,
            'jobs.batch "j" is forbidden: unable to create new content in namespace n because it is being terminated',
            AdmissionError,
        ),
        (403, 'pods "p" is forbidden: maximum memory usage per Container is 1Gi, but limit is 2Gi', AdmissionError),
        (403, 'admission webhook "w.test" denied the request: no', AdmissionError),
        (400, 'admission webhook "w.test" denied the request: no', AdmissionError),
        (
            422,
            "jobs.batch \"j\" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'b' denied request: no",
            AdmissionError,
        ),
        (403, 'jobs.batch is forbidden: User "u" cannot create resource "jobs" in API group "batch"', ForbiddenError),
        (422, 'Job.batch "j" is invalid: spec: must be less', InvalidError),
        (500, 'failed calling webhook "w.test"', ApiError),
    ],
)
def test_an_error_has_the_right_class(status: int, message: str, kind: type[ApiError]) -> None:
    error = _error(status, json.dumps({"message": message, "reason": "Forbidden"}))
    assert type(error) is kind
    assert error.message == message
