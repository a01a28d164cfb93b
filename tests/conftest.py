"""Fixtures of every test: `local_cluster` and `namespace` come from the local cluster's plugin.

In a parallel run a file stays on one worker, and so do all files that use the one `make run`: it starts once. Those come first,
because they take longest.
"""

import os
from typing import Any

import pytest
from xdist.scheduler import LoadFileScheduling

# As the trainer has it, and before numpy is imported: on a busy machine two BLAS threads are several times slower than one.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

pytest_plugins = ["ocelli_local.pytest_plugin", "tests.contract.row_report"]

PRODUCT = "tests/product/"
WITH_INSTANCES_OF_THEIR_OWN = {f"{PRODUCT}test_built_ins.py", f"{PRODUCT}test_restart.py"}


class OneInstanceScheduling(LoadFileScheduling):
    """A file's tests stay together, and those of all files that use the one instance."""

    def _split_scope(self, nodeid: str) -> str:
        file = super()._split_scope(nodeid)
        return PRODUCT if file.startswith(PRODUCT) and file not in WITH_INSTANCES_OF_THEIR_OWN else file


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> OneInstanceScheduling | None:
    return OneInstanceScheduling(config, log) if config.getvalue("dist") == "loadfile" else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: not item.nodeid.startswith(PRODUCT))
