"""The built-in classifiers of the chart with its default values: they become ready from weights in the images."""

from __future__ import annotations

import pytest

from tests.product.instance import Ocelli
from tests.product.test_built_ins import (  # noqa: F401
    BUILT_INS,
    NAMESPACE,
    test_all_three_answer_for_photographs_without_a_download,
    test_built_ins_answer_in_the_language_of_the_client,
)


@pytest.fixture(autouse=True, scope="module")
def _ready(ocelli: Ocelli) -> None:
    for name in BUILT_INS.split():
        ocelli.kubectl("-n", NAMESPACE, "wait", "--for=condition=Ready", f"clf/{name}", "--timeout=180s")
