"""What `ocelli doctor` checks through the gateway: the connection, the log-in, its answers, and the user's classifiers."""

from __future__ import annotations

import io
import ssl
import tempfile
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
from PIL import Image

from ocelli_cli.config_file import Context
from ocelli_cli.findings import Finding, Level, ok, problem, warning
from ocelli_cli.session import Session
from ocelli_client import Card, LoginError, NotFoundError, Ocelli, OcelliError
from ocelli_client.connection import sends_clear_text
from ocelli_client.texts import count, shorten

_PROBE_PIXELS = 64
# Reasons of the condition Ready for which a person has to act, though the classifier has not failed.
_WAITING = {
    "Unschedulable": "add a node that can take it (for a GPU: one that offers GPUs), or lower what it requests",
    "GPUNotOffered": "set the operator's setting that the message names, or do not require a GPU",
    "NoServerReady": "look at its inference servers: kubectl describe clf, kubectl get pods",
    "ArtifactLost": "restore the object store from a backup, or retrain: ocelli retrain",
}


def check_gateway(session: Session) -> Iterator[Finding]:
    """All checks, in order; the first one that makes further ones pointless is the last."""
    try:
        context = session.find_context()
    except OcelliError as error:
        yield problem("configuration", str(error), "run `ocelli login URL`")
        return
    yield ok("configuration", f"the gateway is {context.url}")
    try:
        connected = Ocelli(**session.build_options(context))
    except OcelliError as error:
        yield problem("address", "a setting of the connection cannot be used", str(error))
        return
    with connected as ocelli:
        reached = True
        for finding in _check_connection(context, ocelli):
            reached = reached and finding.level is not Level.PROBLEM
            yield finding
        if reached:
            yield from _check_service(context, ocelli)


def _check_connection(context: Context, ocelli: Ocelli) -> Iterator[Finding]:
    """Address and TLS: whether anything answers."""
    parts = urlsplit(context.url)
    try:
        with httpx.Client(**ocelli.connection.build_client_options()) as client:
            client.head("/")
    except httpx.ConnectError as error:
        certificate = _find_certificate_error(error)
        if certificate is not None:
            yield problem(
                "TLS",
                f"the certificate of {parts.hostname} is not accepted: {certificate}",
                "name the authority that signed it: ocelli login --ca FILE, or OCELLI_CA; or correct the certificate",
            )
            return
        yield problem("address", f"{context.url} is not reachable ({error})", "check the address, and whether the gateway runs")
        return
    except httpx.RequestError as error:
        fact = f"{context.url} does not answer ({error or type(error).__name__})"
        yield problem("address", fact, "check the address, proxies, and whether the gateway runs")
        return
    yield ok("address", f"{parts.hostname} answers")
    if sends_clear_text(context.url):
        yield warning("TLS", "the connection is not encrypted; credentials are sent in clear text", "use an https address")
    elif parts.scheme == "https":
        yield ok("TLS", "the certificate is accepted")


def _find_certificate_error(error: BaseException) -> str | None:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return cause.verify_message
        cause = cause.__cause__ or cause.__context__
    return "the server does not speak TLS, or none that is accepted" if "SSL" in str(error) else None


def _check_service(context: Context, ocelli: Ocelli) -> Iterator[Finding]:
    try:
        facts = ocelli.session()
    except LoginError as error:
        yield problem("log-in", f"the credentials are not accepted ({error})", f"run `ocelli login {context.url}`")
        return
    except NotFoundError:
        yield problem("API", f"{context.url} has no /ocelli/v1", "upgrade the gateway, or correct the address")
        return
    except OcelliError as error:
        yield problem("API", str(error), "check that an Ocelli gateway is at this address")
        return
    yield ok("log-in", f"{facts['user']}, in the namespace {facts['namespace']}")
    yield _judge_version(str(facts["version"]))
    try:
        started = time.monotonic()
        cards = ocelli.list()
        yield ok("API", f"the list of classifiers came within {1000 * (time.monotonic() - started):.0f} ms")
        yield _check_built_ins(ocelli, list(facts.get("built_ins", ())))
        yield _judge_quota(facts, cards)
        yield from _judge_classifiers(cards)
    except OcelliError as error:
        yield problem("API", str(error), "try again; if it fails again, ask the operator of the gateway")


def _judge_version(gateway: str) -> Finding:
    client = version("ocelli-client")
    fact = f"gateway {gateway}, this program {client}"
    if gateway.split(".")[:2] == client.split(".")[:2]:
        return ok("version", fact)
    return warning("version", fact, "install the version of the gateway: pip install ./clients from its release")


def _check_built_ins(ocelli: Ocelli, built_ins: list[str]) -> Finding:
    """Each one classifies an image: what is only listed may have no server."""
    if not built_ins:
        return warning(
            "built-ins",
            "no built-in classifier is installed; `default` knows colours only",
            "set builtIns of the chart, or BUILT_INS of `make run`",
        )
    silent = {}
    with tempfile.TemporaryDirectory(prefix="ocelli-") as folder:
        path = Path(folder) / "probe.png"
        path.write_bytes(_build_probe())
        for name in built_ins:
            try:
                (image,) = ocelli.classify(name, [path], threshold=0).images
            except OcelliError as error:
                silent[name] = str(error)
                continue
            if image.error is not None or not image.classifiers:
                silent[name] = image.error or "no answer"
    if not silent:
        return ok("built-ins", f"{', '.join(built_ins)}: each has classified an image")
    return problem(
        "built-ins",
        "; ".join(f"{name} does not answer: {reason}" for name, reason in silent.items()),
        "wait a minute after an installation; then look at their Pods: kubectl get clf,pods -n NAMESPACE",
    )


def _build_probe() -> bytes:
    file = io.BytesIO()
    Image.linear_gradient("L").resize((_PROBE_PIXELS, _PROBE_PIXELS)).convert("RGB").save(file, "PNG")
    return file.getvalue()


def _judge_quota(facts: Any, cards: tuple[Card, ...]) -> Finding:
    limit = facts.get("quota", {}).get("classifiers")
    if limit is None:
        return ok("quota", f"{count(len(cards), 'classifier')}, without a limit")
    fact = f"{len(cards)} of {count(limit, 'classifier')}"
    if len(cards) < limit:
        return ok("quota", fact)
    return warning("quota", f"{fact}: no further one can be created", "delete one (`ocelli delete`), or have the quota raised")


def _judge_classifiers(cards: tuple[Card, ...]) -> Iterator[Finding]:
    """One finding for each classifier that needs a person, or one that says that none needs a person."""
    fine = True
    for card in cards:
        finding = _judge_classifier(card)
        if finding is not None:
            fine = False
            yield finding
    if fine:
        trained = sum(card.status in ("training", "retraining") for card in cards)
        names = [card.name for card in cards]
        fact = f"{shorten(names)}; {trained} in training" if cards else "there are none"
        yield ok("classifiers", fact)


def _judge_classifier(card: Card) -> Finding | None:
    check = f"classifier {card.name}"
    explanation = card.explanation or f"the reason is {card.reason}"
    if card.status == "failed":
        return problem(
            check,
            explanation,
            _WAITING.get(card.reason or "", f"do what the message says; `ocelli status {card.classifier_id}` has more"),
        )
    if card.awaits_approval:
        remedy = f"look at its quality, then: ocelli approve {card.classifier_id} {card.awaits_approval}"
        return warning(check, f"revision {card.awaits_approval} waits for approval", remedy)
    if card.reason in _WAITING:
        return problem(check, explanation, _WAITING[card.reason])
    return None
