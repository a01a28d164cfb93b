"""`python -m ocelli_model.sign --store URL --key FILE [--namespace NAME] [--classifier ID]`: sign stored artifacts.

For artifacts that were trained before the installation had a signing key, or were signed with an older key. Their digests are
verified first, and it prints one line for each artifact.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from ocelli_api.canonical_json import sha256_hex
from ocelli_model.artifact import ArtifactError, load_artifact
from ocelli_model.signature import SignedArtifact, Signer, SigningKeyError, save_signature
from ocelli_storage.documents import read_document
from ocelli_storage.layout import ARTIFACT_METADATA, ARTIFACTS, TENANTS, ClassifierLocation
from ocelli_storage.object_store import ObjectNotFoundError, ObjectStore, ObjectStoreError, ObjectTooLargeError
from ocelli_storage.store_url import open_store


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit status: 1 if an artifact could not be signed."""
    parser = argparse.ArgumentParser(prog="python -m ocelli_model.sign", description="Sign stored artifacts.")
    parser.add_argument("--store", metavar="URL", required=True, help="the object store, such as s3://bucket/prefix")
    parser.add_argument("--key", metavar="FILE", required=True, type=Path, help="private key of Ed25519 in PEM")
    parser.add_argument("--namespace", metavar="NAME", help="only artifacts of this namespace; default: all")
    parser.add_argument("--classifier", metavar="ID", help="only artifacts of the classifier with this id; default: all")
    options = parser.parse_args(arguments)
    try:
        signer = Signer.parse(options.key.read_text())
        return asyncio.run(_sign_all(open_store(options.store), signer, options.namespace, options.classifier))
    except (SigningKeyError, ObjectStoreError, OSError, UnicodeDecodeError) as error:
        print(error, file=sys.stderr)
        return 1


async def _sign_all(store: ObjectStore, signer: Signer, namespace: str | None, classifier_id: str | None) -> int:
    failures = 0
    async for location, revision in _find_artifacts(store, namespace, classifier_id):
        try:
            digest = sha256_hex(await read_document(store, location.artifact_key(revision, ARTIFACT_METADATA)))
            await load_artifact(store, location, revision, expected_digest=digest)
        except (ArtifactError, ObjectNotFoundError, ObjectTooLargeError) as error:
            failures += 1
            print(error, file=sys.stderr)
            continue
        await save_signature(store, SignedArtifact(location=location, revision=revision, digest=digest), signer)
        print(f"{location.namespace} {location.classifier_id} {revision} {digest}")
    return 1 if failures else 0


async def _find_artifacts(
    store: ObjectStore, namespace: str | None, classifier_id: str | None
) -> AsyncIterator[tuple[ClassifierLocation, str]]:
    """The place and revision of every complete artifact."""
    for tenant in [namespace] if namespace else sorted(await store.list_folders(TENANTS)):
        folder = f"{TENANTS}/{tenant}/{ARTIFACTS}"
        for identity in [classifier_id] if classifier_id else sorted(await store.list_folders(folder)):
            location = ClassifierLocation(namespace=tenant, classifier_id=identity)
            for revision in sorted(await store.list_folders(location.artifacts_prefix)):
                if await store.exists(location.artifact_key(revision, ARTIFACT_METADATA)):
                    yield location, revision


if __name__ == "__main__":
    sys.exit(main())
