"""Opens the object store behind a URL.

file:///folder                              a folder, on one machine
s3://bucket/prefix  gs://…  az://…          a bucket
http://host  https://host                   the embedded store (`ocelli_store`)
"""

from __future__ import annotations

from urllib.parse import urlsplit

from ocelli_storage.object_store import RETRY_LIMIT_SECONDS, ObjectStore, StoreConfigurationError


def open_store(url: str, *, retry_limit_seconds: float = RETRY_LIMIT_SECONDS) -> ObjectStore:
    """Open the store at a URL of one of these schemes. Creates the folder if it does not exist. Sends no request.

    A request without an answer is retried for `retry_limit_seconds`.

    Raises:
        StoreConfigurationError: the URL is not one of these.
    """
    # A process needs only one of the two modules, and each imports a large library.
    scheme = urlsplit(url).scheme
    if scheme in ("http", "https"):
        from ocelli_storage.embedded_store import EmbeddedStore

        return EmbeddedStore.open(url, retry_limit_seconds=retry_limit_seconds)
    from ocelli_storage.obstore_store import BUCKET_SCHEMES, ObstoreStore

    if scheme == "file":
        return ObstoreStore.open_folder(url)
    if scheme in BUCKET_SCHEMES:
        return ObstoreStore.open_bucket(url, retry_limit_seconds=retry_limit_seconds)
    raise StoreConfigurationError(
        f"object store: {url!r} is not a URL of a store; set file:///folder, s3://bucket, gs://bucket, az://container "
        "or http://host of the embedded store"
    )
