"""The environment, the shared fixtures (`local_cluster` and `namespace`) and the order of all tests.

In a parallel run, all tests of a file run on one worker, and so do all files that use the one `make run`, which starts once.
These run first, together with tests that wait more than they compute. Then come the longest of the others: a worker that starts
one of them last works alone for minutes. Small files that use one core each run last.
"""

import os
from typing import Any

import pytest
from xdist.scheduler import LoadFileScheduling

from tests.environment import clean

clean(os.environ)
# As in the trainer, before numpy and PyTorch are imported. On a busy machine two BLAS threads are much slower than one, and
# threads of PyTorch that wait actively take four times the processor time.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
# Go collects garbage less often: control planes and a thousand runs of kubectl take a fifth less processor time.
os.environ.setdefault("GOGC", "400")

pytest_plugins = ["ocelli_local.pytest_plugin", "tests.contract.row_report"]

PRODUCT = "tests/product/"
WITH_INSTANCES_OF_THEIR_OWN = (f"{PRODUCT}test_built_ins.py", f"{PRODUCT}test_restart.py")
FIRST = (PRODUCT, "tests/integration/", "tests/gitops/", "tests/unit/model/", "tests/unit/training/")


def find_scope(file: str) -> str:
    """The unit that stays on one worker: a file, or all files that use the one instance."""
    return PRODUCT if file.startswith(PRODUCT) and file not in WITH_INSTANCES_OF_THEIR_OWN else file


class OneInstanceScheduling(LoadFileScheduling):
    def _split_scope(self, nodeid: str) -> str:
        return find_scope(super()._split_scope(nodeid))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> OneInstanceScheduling | None:
    return OneInstanceScheduling(config, log) if config.getvalue("dist") == "loadfile" else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    def find_place(item: pytest.Item) -> int:
        scope = find_scope(item.nodeid.split("::")[0])
        if scope in WITH_INSTANCES_OF_THEIR_OWN:
            return len(FIRST)
        return next((place for place, folder in enumerate(FIRST) if scope.startswith(folder)), len(FIRST))

    items.sort(key=find_place)
