"""Fixtures of every test: `local_cluster` and `namespace` come from the local cluster's plugin."""

import os

# As the trainer has it, and before numpy is imported: on a busy machine two BLAS threads are several times slower than one.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

pytest_plugins = ["ocelli_local.pytest_plugin", "tests.contract.row_report"]
