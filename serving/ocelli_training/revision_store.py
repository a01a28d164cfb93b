"""A revision in the object store, as its trainer reads and writes it: the definition to learn, and what a training leaves.

A customer can be erased at any time. An erasure first marks the sources in all definitions, then deletes what belongs to the
customer. So whatever depends on a definition is written first, and the definition is read again afterwards: either the trainer
sees the erasure, or the erasure sees what the trainer has written.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from ocelli_api.classifier import parse_spec
from ocelli_api.pods import Environment
from ocelli_model.artifact import Artifact, ArtifactError, load_artifact, save_artifact
from ocelli_model.backbone import BackboneMetadata, save_backbone
from ocelli_model.signature import Signer, SigningKeyError
from ocelli_storage.documents import parse_document, read_document
from ocelli_storage.judged import Judged, save_judged
from ocelli_storage.layout import (
    ARTIFACT_METADATA,
    BILL_OF_MATERIALS,
    DEFINITION,
    REPORT,
    REPORT_PAGE,
    THUMBNAILS,
    is_image_data,
)
from ocelli_storage.object_store import ObjectNotFoundError, ObjectStore, ObjectTooLargeError
from ocelli_storage.thumbnails import erase_thumbnails
from ocelli_training.feature_cache import FeatureCache
from ocelli_training.image_data import find_erased_customers
from ocelli_training.learned import OwnNetwork
from ocelli_training.provenance import Provenance
from ocelli_training.report import Report, render_page
from ocelli_training.settings import TrainerSettings
from ocelli_training.thumbnails import Thumbnails

if TYPE_CHECKING:
    from ocelli_training.pretrained import PretrainedClassifier

logger = logging.getLogger(__name__)

_COUNTED = ("nearDuplicates", "conflicts", "suspectedLabelErrors", "outliers", "smallImages")


class DefinitionError(Exception):
    """The definition to learn is missing or cannot be read."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Results:
    """What is stored of a training."""

    judged: Mapping[str | None, Judged]
    """By customer, see `split_by_customer`."""
    report: Report
    thumbnails: Thumbnails
    artifact: Artifact
    provenance: Provenance
    features: FeatureCache
    network: OwnNetwork | None = None
    """The artifact's own network; None: it uses an installed backbone."""


class RevisionStore:
    """What is stored of the revision of one attempt. Every method raises ObjectStoreError where the store fails."""

    def __init__(self, settings: TrainerSettings, store: ObjectStore) -> None:
        """Raises SigningKeyError."""
        self._store = store
        self._location = settings.location
        self._revision = settings.revision
        self._trusted = settings.signing_public_keys
        self._signer = _load_signer(settings)
        self._definition_key = settings.location.training_key(settings.revision, settings.attempt, DEFINITION)

    async def load_definition(self) -> dict[str, Any]:
        """The definition to learn, with the erasures until now. Raises DefinitionError."""
        key = self._definition_key
        try:
            document = parse_document(await read_document(self._store, key))
            parse_spec(document)
        except ObjectNotFoundError as error:
            raise DefinitionError(
                f"the object store has no {key}; the operator writes it before it starts a trainer"
            ) from error
        except (ObjectTooLargeError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise DefinitionError(f"{key} is not a definition; use one version of Ocelli for all its parts") from error
        return document

    async def find_artifact(self) -> Artifact | None:
        """The artifact, if an earlier attempt succeeded and its outcome was lost."""
        if not await self._store.exists(self._location.artifact_key(self._revision, ARTIFACT_METADATA)):
            return None
        try:
            return await load_artifact(self._store, self._location, self._revision, trusted=self._trusted)
        except ArtifactError as error:
            logger.warning("artifact.unusable", extra={"error": str(error)})
            return None

    async def save(self, results: Results) -> None:
        """Save the results. Once `artifact.json` exists, the revision counts as trained.

        Thumbnails and the feature cache are last: a revision is complete without them, and they must not use up a quota.
        """
        report = results.report.to_json()
        erased = find_erased_customers(await self._save_definition())
        left = {customer: part for customer, part in results.judged.items() if customer not in erased}
        await save_judged(self._store, self._location, self._revision, left)
        await self._put(REPORT, _json(report))
        await self._put(REPORT_PAGE, await asyncio.to_thread(_build_page, report, results, erased))
        await self._put(BILL_OF_MATERIALS, _json(results.provenance.to_json()))
        if results.network is not None:
            await self._save_network(results.network.metadata, results.network.files)
        await self._save_artifact(results.artifact, {name: report["data"][f"{name}Count"] for name in _COUNTED})
        key_of = partial(self._location.image_data_key, self._revision, file=THUMBNAILS)
        await results.thumbnails.save(self._store, key_of, erased)
        await results.features.save(self._revision, erased)
        await self.delete_erased()

    async def delete_erased(self) -> None:
        """Delete image data and thumbnails of customers that were erased while they were saved."""
        erased = find_erased_customers(await self.load_definition())
        for customer in erased:
            await erase_thumbnails(self._store, self._location.artifact_key(self._revision, REPORT_PAGE), customer)
        for item in await self._store.list_objects(self._location.image_data_prefix(self._revision)) if erased else ():
            if any(is_image_data(item.key, customer) for customer in erased):
                await self._store.delete(item.key)

    async def save_pretrained(self, made: PretrainedClassifier) -> None:
        """Save a pretrained classifier with its own network."""
        await self._save_definition()
        await self._put(REPORT, _json(made.report))
        await self._put(BILL_OF_MATERIALS, _json(made.provenance.to_json()))
        await self._save_network(made.network.metadata, made.network.files)
        await self._save_artifact(made.artifact)

    async def _save_definition(self) -> dict[str, Any]:
        """Save the definition next to the artifact, and return it."""
        saved: dict[str, Any] | None = None
        while (definition := await self.load_definition()) != saved:
            await self._put(DEFINITION, _json(definition))
            saved = definition
        return definition

    async def _save_network(self, metadata: BackboneMetadata, files: Mapping[str, bytes]) -> None:
        prefix = self._location.network_prefix(self._revision)
        await save_backbone(self._store, metadata, files, prefix=prefix)

    async def _save_artifact(self, artifact: Artifact, counts: Mapping[str, int] | None = None) -> None:
        digest = await save_artifact(self._store, self._location, artifact, self._signer)
        signed_by = {} if self._signer is None else {"signed_by": self._signer.public_key.key_id}
        logger.info("artifact.stored", extra={"digest": digest, **signed_by, **(counts or {})})

    async def _put(self, file: str, content: bytes) -> None:
        await self._store.put(self._location.artifact_key(self._revision, file), content)


def _build_page(report: Mapping[str, Any], results: Results, erased: Collection[str]) -> bytes:
    return render_page(report, results.thumbnails.build_lines(erased)).encode()


def _load_signer(settings: TrainerSettings) -> Signer | None:
    """None: artifacts are not signed."""
    trusted = settings.signing_public_keys
    if not settings.signing_key.pem:
        if trusted:
            raise SigningKeyError(
                f"inference servers use only signed artifacts ({Environment.SIGNING_PUBLIC_KEYS} is set), and there is no "
                f"signing key; set {Environment.SIGNING_KEY} from the Secret of the installation's signing key"
            )
        return None
    signer = Signer.parse(settings.signing_key.pem)
    if trusted and signer.public_key not in trusted:
        raise SigningKeyError(
            f"the signing key's public key is {signer.public_key}, which inference servers do not trust; add it to "
            f"{Environment.SIGNING_PUBLIC_KEYS} (in the chart: signing.publicKeys), or use another key in the Secret"
        )
    return signer


def _json(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, ensure_ascii=False, indent=1).encode()
