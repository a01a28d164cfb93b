"""The parts of a running gateway and how they are put together. It must not know addresses or handlers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from aiohttp.abc import AbstractResolver

from ocelli_api.network_addresses import NetworkRules
from ocelli_cluster.client import ClusterClient
from ocelli_cluster.resources import ObjectKey
from ocelli_gateway.admission import Admission
from ocelli_gateway.auth import Authenticator
from ocelli_gateway.changes import Changes
from ocelli_gateway.classifier_store import ClassifierStore
from ocelli_gateway.classifiers import Classifiers
from ocelli_gateway.classify import Classification
from ocelli_gateway.credentials_folder import CredentialsFolder
from ocelli_gateway.definitions import Definitions
from ocelli_gateway.example_changes import ExampleChanges
from ocelli_gateway.fair_slots import FairSlots
from ocelli_gateway.fair_threads import FairThreads
from ocelli_gateway.health import HealthCheck
from ocelli_gateway.metrics import Metrics
from ocelli_gateway.overview import Overview
from ocelli_gateway.pending_uploads import PendingUploads
from ocelli_gateway.pixels import PixelReader
from ocelli_gateway.prediction_client import PredictionClient
from ocelli_gateway.quality import Quality
from ocelli_gateway.quotas import RateQuotas
from ocelli_gateway.revision_files import CONCURRENT_READS, RevisionFiles
from ocelli_gateway.settings import GatewaySettings
from ocelli_gateway.stored_files import StoredFiles
from ocelli_gateway.tenant_usage import TenantUsage
from ocelli_gateway.token_keys import TokenKeys
from ocelli_gateway.tokens import Tokens
from ocelli_gateway.uploads import UploadSpace
from ocelli_gateway.url_fetcher import ThreadedResolver, UrlFetcher
from ocelli_gateway.user_data import UserData
from ocelli_gateway.zip_inspection import ZipInspector
from ocelli_http.body_pace import BodyPace
from ocelli_storage.object_store import ObjectStore

REQUEST_PREDICTION_TIMEOUTS = 4
"""A classify request with all its images may take this many times as long as one image."""
MAX_CONCURRENT_PREDICTIONS = 256
"""Of one image by one classifier each."""
ZIP_THREADS = 2
"""For zips to classify; one tenant may hold one of them. Reading zips is pure Python: more threads would not be faster."""
WAITING_PART_OF_CONNECTIONS = 8
"""An eighth of all connections may wait in one queue for the turns of one tenant, so that its queues hold at most half of them.
Further requests are refused at once."""
UNBOUNDED_SLOTS = 1_000_000
"""For slots that limit only the share of each tenant."""


@dataclass(frozen=True, kw_only=True)
class Gateway:
    """Everything that handlers use. Build it with `running_gateway`."""

    metrics: Metrics
    objects: ObjectStore
    admission: Admission
    tokens: Tokens
    rates: RateQuotas
    classifiers: Classifiers
    overview: Overview
    changes: Changes
    pending_uploads: PendingUploads
    example_changes: ExampleChanges
    quality: Quality
    stored_files: StoredFiles
    user_data: UserData
    classification: Classification
    example_zips: ZipInspector
    health: HealthCheck
    requests: FairSlots
    downloads: FairSlots
    event_streams: FairSlots
    examples_space: UploadSpace
    classify_space: UploadSpace


@asynccontextmanager
async def running_gateway(
    settings: GatewaySettings, client: ClusterClient, objects: ObjectStore, *, resolver: AbstractResolver | None = None
) -> AsyncIterator[Gateway]:
    """A gateway that reads credentials and watches their namespaces until the context is left.

    `resolver` looks up the names in URLs of images; None: the system's resolver.
    """
    metrics, rates = Metrics(), RateQuotas()
    timeout_seconds = settings.body_timeout_seconds
    classify_seconds = REQUEST_PREDICTION_TIMEOUTS * settings.prediction_timeout_seconds
    waiting_limit = settings.connections // WAITING_PART_OF_CONNECTIONS

    def build_slots(what: str, total: int, waiting_limit: int | None = None) -> FairSlots:
        return FairSlots(
            what,
            total=total,
            share=settings.share_of(total),
            timeout_seconds=timeout_seconds,
            waiting_limit=waiting_limit,
        )

    def build_space(concurrent: int) -> UploadSpace:
        pace = BodyPace(stall_seconds=timeout_seconds, least_bytes_per_second=settings.body_kilobytes_per_second * 1024)
        slots = build_slots("uploads are being read", concurrent, waiting_limit)
        return UploadSpace(folder=settings.upload_folder, slots=slots, pace=pace)

    async with AsyncExitStack() as resources:
        keys = TokenKeys(client, ObjectKey(settings.namespace, settings.token_keys_secret))
        tokens = Tokens(keys)
        authenticator = Authenticator(tokens)
        resources.callback(authenticator.close)
        store, definitions = ClassifierStore(client, settings.built_in_namespace), Definitions(objects)
        resources.push_async_callback(store.close)
        predictions = PredictionClient(
            store,
            metrics,
            timeout_seconds=settings.prediction_timeout_seconds,
            calls=build_slots("predictions are being requested", MAX_CONCURRENT_PREDICTIONS),
        )
        resources.push_async_callback(predictions.close)
        pixels = PixelReader(timeout_seconds=classify_seconds)
        resources.callback(pixels.close)
        # Separate threads: uploads of examples do not delay zips to classify.
        example_zips = ZipInspector(timeout_seconds=timeout_seconds)
        resources.push_async_callback(example_zips.close)
        classify_zips = FairThreads("zips are being opened", threads=ZIP_THREADS, share=1, timeout_seconds=timeout_seconds)
        resources.callback(classify_zips.close)
        fetcher = UrlFetcher(
            folder=settings.upload_folder,
            slots=build_slots("images are being fetched", settings.max_concurrent_fetches),
            rules=NetworkRules.parse(allowed=settings.url_allowed_networks, denied=settings.url_denied_networks),
            # As many threads as slots: no name waits for another one.
            resolver=resolver or ThreadedResolver(settings.max_concurrent_fetches),
        )
        resources.push_async_callback(fetcher.close)
        folder = CredentialsFolder(
            settings.credentials_folder,
            authenticator,
            store.watch_namespaces,
            reserved_namespace=settings.built_in_namespace,
        )
        await asyncio.gather(folder.refresh(), keys.refresh())
        health = HealthCheck(folder, store, objects, settings.upload_folder)
        for task in (folder.watch(settings.credentials_poll_seconds), keys.keep(), health.watch()):
            resources.callback(asyncio.create_task(task).cancel)
        usage, delay_seconds = TenantUsage(store, objects), settings.replica_delay_seconds
        classifiers = Classifiers(store, objects, definitions, usage, replica_delay_seconds=delay_seconds)
        changes = Changes(store, objects, replica_delay_seconds=delay_seconds)
        pending_uploads = PendingUploads(store, objects, usage)
        report_reads = build_slots("reports are being read", CONCURRENT_READS, waiting_limit)
        yield Gateway(
            metrics=metrics,
            objects=objects,
            admission=Admission(authenticator, rates, settings),
            tokens=tokens,
            rates=rates,
            classifiers=classifiers,
            overview=Overview(store, objects, classifiers),
            changes=changes,
            pending_uploads=pending_uploads,
            example_changes=ExampleChanges(store, definitions, changes, pending_uploads, usage),
            quality=Quality(store, RevisionFiles(objects, report_reads)),
            stored_files=StoredFiles(store, definitions),
            user_data=UserData(store, objects),
            classification=Classification(
                store,
                predictions,
                pixels,
                fetcher,
                build_slots("images are being processed", settings.max_concurrent_images),
                classify_zips,
                timeout_seconds=classify_seconds,
            ),
            example_zips=example_zips,
            health=health,
            requests=FairSlots(
                "requests are being processed",
                total=UNBOUNDED_SLOTS,
                share=settings.max_concurrent_tenant_requests,
                timeout_seconds=timeout_seconds,
                waiting_limit=waiting_limit,
            ),
            downloads=build_slots("models are being downloaded", settings.max_concurrent_downloads, waiting_limit),
            # A request does not wait for a free stream: open ones can last for hours.
            event_streams=build_slots("event streams are open", settings.max_event_streams, 0),
            examples_space=build_space(settings.max_concurrent_uploads),
            classify_space=build_space(settings.max_concurrent_classify_requests),
        )
