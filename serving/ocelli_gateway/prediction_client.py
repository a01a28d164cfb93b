"""Calls to inference servers: always for the served revision, balanced over the Pods that are Ready.

If a Pod refuses or does not answer, another one is tried, then the Pods that the API server lists now. So a switch to another
revision leaves no gap. Tenants share the calls: servers that hang do not delay other tenants. It must not know the public API.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import aiohttp

from ocelli_api.documents import parse_fields
from ocelli_api.pods import INFERENCE_PORT
from ocelli_api.prediction import (
    ANSWER_BYTES_LIMIT,
    GATEWAY_CONNECTIONS_LIMIT,
    LANGUAGE_HEADER,
    PREDICTIONS_PATH,
    REVISION_HEADER,
    THRESHOLD_HEADER,
    ImageFault,
    Prediction,
    Refusal,
)
from ocelli_gateway.classifier_store import ClassifierStore
from ocelli_gateway.fair_slots import FairSlots
from ocelli_gateway.known_classifiers import InferenceServer, KnownClassifier
from ocelli_gateway.metrics import Metrics
from ocelli_gateway.refusals import TooManyRequestsError, UnavailableError

CONNECT_TIMEOUT_SECONDS = 2.0
KEEP_ALIVE_SECONDS = 30.0
"""Shorter than the servers keep an idle connection, so that they do not close one while a request is sent."""
LIVE_READS = 3
LIVE_READ_PAUSE_SECONDS = 0.2
UNREACHABLE = "Unreachable"


class PredictionError(Exception):
    """A prediction failed. The message is one sentence."""


class ImageFaultError(PredictionError):
    """No server can predict this image."""

    def __init__(self, fault: ImageFault, message: str) -> None:
        super().__init__(message)
        self.fault = fault


class ClassifierGoneError(PredictionError):
    """The classifier was deleted in the meantime."""


class NoServerError(PredictionError, UnavailableError):
    """No inference server answers."""


class QueueFullError(PredictionError, TooManyRequestsError):
    """The queues of all inference servers are full."""


@dataclass(frozen=True, kw_only=True)
class Question:
    """A request for a prediction."""

    tenant: str
    """The tenant of the request."""
    image: bytes
    """The bytes of the upload."""
    threshold: float
    """Classes below it may be left out."""
    language: str | None = None
    """Of the class names; None: untranslated."""


@dataclass(frozen=True, kw_only=True)
class _Refused:
    """Why one server did not predict."""

    refusal: str
    retry_after_seconds: int = 1


class PredictionClient:
    """One pool of kept-alive connections to all inference servers."""

    def __init__(
        self,
        store: ClassifierStore,
        metrics: Metrics,
        *,
        timeout_seconds: float,
        calls: FairSlots,
        port: int = INFERENCE_PORT,
    ) -> None:
        """`calls` limits the number of concurrent calls."""
        self._store = store
        self._metrics = metrics
        self._timeout_seconds = timeout_seconds
        self._port = port
        self._calls = calls
        self._outstanding: Counter[str] = Counter()
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=0, limit_per_host=GATEWAY_CONNECTIONS_LIMIT, keepalive_timeout=KEEP_ALIVE_SECONDS
            ),
            # Half of the total, so that a server that hangs leaves time for another one.
            timeout=aiohttp.ClientTimeout(total=timeout_seconds / 2, sock_connect=CONNECT_TIMEOUT_SECONDS),
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
        )

    async def close(self) -> None:
        """Close every connection."""
        await self._session.close()

    async def predict(self, classifier: KnownClassifier, question: Question) -> Prediction:
        """The scores of one image by the served revision.

        Raises:
            ImageFaultError: the image cannot be predicted.
            ClassifierGoneError: the classifier was deleted.
            NoServerError, QueueFullError: no server answers, or all queues are full.
            ClusterError: the API server was needed and did not answer.
        """
        try:
            async with asyncio.timeout(self._timeout_seconds), self._calls.slot(question.tenant):
                return await self._predict(classifier, question)
        except (TimeoutError, UnavailableError) as error:
            raise NoServerError(_no_server(classifier)) from error

    async def _predict(self, classifier: KnownClassifier, question: Question) -> Prediction:
        revision = classifier.served_revision or ""
        servers = self._store.servers(classifier.namespace, classifier.classifier_id, revision)
        answer = await self._ask_any(servers, classifier.classifier_id, revision, question)
        reads = 0
        while isinstance(answer, _Refused):
            if answer.refusal == Refusal.QUEUE_FULL:
                message = f"All inference servers of the classifier {classifier.classifier_id} are busy; try again."
                raise QueueFullError(message, retry_after_seconds=answer.retry_after_seconds)
            if reads == LIVE_READS:
                raise NoServerError(_no_server(classifier))
            if reads:
                await asyncio.sleep(LIVE_READ_PAUSE_SECONDS)
            reads += 1
            known = await self._store.find_live(classifier.namespace, classifier.classifier_id)
            if known is None:
                raise ClassifierGoneError(f"The classifier {classifier.classifier_id} was deleted.")
            revision = known.served_revision or revision
            servers = await self._store.servers_live(classifier.namespace, classifier.classifier_id, revision)
            answer = await self._ask_any(servers, classifier.classifier_id, revision, question)
        return answer

    async def _ask_any(
        self, servers: Iterable[InferenceServer], classifier_id: str, revision: str, question: Question
    ) -> Prediction | _Refused:
        """Try one server after the other, the least busy first; if all fail, a full queue counts more than no answer."""
        untried = list(servers)
        refused = _Refused(refusal=UNREACHABLE)
        while untried:
            server = min(untried, key=lambda item: self._outstanding[item.uid])
            untried.remove(server)
            self._outstanding[server.uid] += 1
            try:
                answer = await self._ask(server, classifier_id, revision, question)
            finally:
                self._outstanding[server.uid] -= 1
                if not self._outstanding[server.uid]:
                    del self._outstanding[server.uid]
            if isinstance(answer, Prediction):
                return answer
            if refused.refusal != Refusal.QUEUE_FULL:
                refused = answer
        return refused

    async def _ask(
        self, server: InferenceServer, classifier_id: str, revision: str, question: Question
    ) -> Prediction | _Refused:
        host = f"[{server.address}]" if ":" in server.address else server.address
        headers = {
            REVISION_HEADER: revision,
            THRESHOLD_HEADER: str(question.threshold),
            "Content-Type": "application/octet-stream",
        }
        if question.language is not None:
            headers[LANGUAGE_HEADER] = question.language
        started = time.monotonic()
        try:
            async with self._session.post(
                f"http://{host}:{self._port}{PREDICTIONS_PATH}",
                data=question.image,
                headers=headers,
                allow_redirects=False,
            ) as response:
                document = json.loads(await _read_bounded(response))
                retry_after = response.headers.get("Retry-After", "1")
                status = response.status
            if status == 200:
                prediction = parse_fields(Prediction, document)
            elif status == 400:
                fault, message = ImageFault(document["error"]["kind"]), str(document["error"]["message"])
            else:
                refusal = Refusal(document["error"]["kind"])
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError, KeyError, TypeError, RecursionError):
            self._metrics.predictions.labels(UNREACHABLE).inc()
            return _Refused(refusal=UNREACHABLE)
        if status == 400:
            self._metrics.predictions.labels("ImageFault").inc()
            raise ImageFaultError(fault, message)
        if status != 200:
            self._metrics.predictions.labels(str(refusal)).inc()
            return _Refused(refusal=refusal, retry_after_seconds=int(retry_after) if retry_after.isdigit() else 1)
        # The address may belong to another Pod by now.
        if prediction.revision != revision or prediction.classifier_id != classifier_id:
            self._metrics.predictions.labels(str(Refusal.OTHER_REVISION)).inc()
            return _Refused(refusal=Refusal.OTHER_REVISION)
        self._metrics.predictions.labels("Predicted").inc()
        self._metrics.prediction_seconds.observe(time.monotonic() - started)
        return prediction


async def _read_bounded(response: aiohttp.ClientResponse) -> bytes:
    data = bytearray()
    async for chunk in response.content.iter_chunked(64 * 1024):
        data += chunk
        if len(data) > ANSWER_BYTES_LIMIT:
            raise ValueError("the answer is longer than any prediction")
    return bytes(data)


def _no_server(classifier: KnownClassifier) -> str:
    return f"No inference server of the classifier {classifier.classifier_id} is reachable; try again."
