"""Data about pictures: everything that a training stores about single pictures, such as scores and features.

Each customer's pictures have files of their own (`ClassifierLocation.picture_data_key`), so that erasing a customer deletes
files and parses none. Whoever erases marks the sources in the definition first and deletes files afterwards. A trainer
does the opposite: it stores files, then reads the definition again and deletes the files of erased customers. So none is left,
whoever comes first. It must not know what the files hold.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ocelli_api.revision import definition_sources
from ocelli_storage.layout import ClassifierLocation, is_picture_data
from ocelli_storage.object_store import ObjectStore


def find_erased_customers(document: Mapping[str, Any]) -> frozenset[str]:
    """The keys of the customers whose sources in a stored definition are all erased."""
    erased: set[str] = set()
    present: set[str] = set()
    for source in definition_sources(document):
        if source.get("customer"):
            (erased if source.get("erased") else present).add(source["customer"])
    return frozenset(erased - present)


def rows_by_customer(customers: Sequence[str | None]) -> dict[str | None, NDArray[np.intp]]:
    """For each customer, by key, the rows of their pictures; `customers` are those of all pictures, None for nobody."""
    rows: dict[str | None, list[int]] = defaultdict(list)
    for row, customer in enumerate(customers):
        rows[customer].append(row)
    return {customer: np.array(own, dtype=np.intp) for customer, own in rows.items()}


async def delete_erased(store: ObjectStore, location: ClassifierLocation, revision: str, document: Mapping[str, Any]) -> None:
    """Delete what is stored about the pictures of customers that a definition says are erased.

    Raises:
        StoreUnavailableError: see there.
    """
    erased = find_erased_customers(document)
    if not erased:
        return
    for item in await store.list_objects(location.picture_data_prefix(revision)):
        if any(is_picture_data(item.key, customer) for customer in erased):
            await store.delete(item.key)
