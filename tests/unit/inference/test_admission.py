"""The limits on the load of the server."""

from __future__ import annotations

import pytest

from ocelli_inference.admission import Admission, AdmissionLimits, QueueFullError
from ocelli_inference.metrics import Metrics


def test_images_beyond_the_limit_are_refused(metrics: Metrics) -> None:
    admission = Admission(AdmissionLimits(images=2, bytes=100), metrics)
    with admission.open_ticket() as first, admission.open_ticket() as second:
        first.add_images(2)
        with pytest.raises(QueueFullError, match="2 images are waiting"):
            second.add_images(1)


def test_a_full_queue_refuses_before_a_body_is_read(metrics: Metrics) -> None:
    admission = Admission(AdmissionLimits(images=1, bytes=100), metrics)
    with admission.open_ticket() as ticket:
        ticket.add_images(1)
        with pytest.raises(QueueFullError), admission.open_ticket():
            pass


def test_bytes_beyond_the_limit_are_refused(metrics: Metrics) -> None:
    admission = Admission(AdmissionLimits(images=2, bytes=100), metrics)
    with admission.open_ticket() as first, admission.open_ticket() as second:
        first.add_bytes(60)
        with pytest.raises(QueueFullError, match="60 bytes"):
            second.add_bytes(41)
        second.add_bytes(40)


def test_a_ticket_returns_everything_at_its_end(metrics: Metrics) -> None:
    admission = Admission(AdmissionLimits(images=1, bytes=100), metrics)
    with admission.open_ticket() as ticket:
        ticket.add_bytes(100)
        ticket.add_images(1)
    with admission.open_ticket() as ticket:
        ticket.add_bytes(100)
        ticket.add_images(1)


def test_load_is_measured(metrics: Metrics) -> None:
    admission = Admission(AdmissionLimits(images=2, bytes=100), metrics)
    with admission.open_ticket() as ticket:
        ticket.add_bytes(70)
        ticket.add_images(2)
        assert metrics.registry.get_sample_value("ocelli_inference_queued_bytes") == 70
        assert metrics.registry.get_sample_value("ocelli_inference_queued_images") == 2
    assert metrics.registry.get_sample_value("ocelli_inference_queued_bytes") == 0
