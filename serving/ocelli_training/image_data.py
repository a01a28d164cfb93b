"""Image data: everything that a training stores about single images, such as scores and features.

Each customer's images have files of their own (`ClassifierLocation.image_data_key`), so that an erasure deletes files and
parses none. See `revision_store` for an erasure during a training. Pure: it must not know what the files hold.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ocelli_api.revision import definition_sources


def find_erased_customers(document: Mapping[str, Any]) -> frozenset[str]:
    """The keys of the customers whose sources in a stored definition are all erased."""
    erased: set[str] = set()
    present: set[str] = set()
    for source in definition_sources(document):
        if source.get("customer"):
            (erased if source.get("erased") else present).add(source["customer"])
    return frozenset(erased - present)


def rows_by_customer(customers: Sequence[str | None]) -> dict[str | None, NDArray[np.intp]]:
    """For each customer, by key, the rows of their images; `customers` are those of all images, or None."""
    rows: dict[str | None, list[int]] = defaultdict(list)
    for row, customer in enumerate(customers):
        rows[customer].append(row)
    return {customer: np.array(own, dtype=np.intp) for customer, own in rows.items()}
