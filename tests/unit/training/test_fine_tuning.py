"""Fine-tuning from a definition to its artifact, in this process, with the installed network and few epochs."""

from __future__ import annotations

from typing import Any

import pytest

from ocelli_api.outcome import ExitCode, OutcomeReason

EPOCHS = 1


@pytest.fixture
def two_classes(trainer: Any, make_example_zip: Any) -> Any:
    trainer.add_class("blue", trainer.upload(make_example_zip(12)))
    trainer.add_class("red", trainer.upload(make_example_zip(12, first_seed=50, red=190)))
    trainer.definition["model"] = {"strategy": "FineTune", "epochs": EPOCHS, "batchSize": 8}
    return trainer


def test_heads_that_are_not_improved_are_the_result(two_classes: Any) -> None:
    outcome, exit_code = two_classes.run()
    assert (outcome.reason, exit_code) == (OutcomeReason.NOT_IMPROVED, ExitCode.SUCCEEDED)
