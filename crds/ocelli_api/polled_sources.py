"""Which sources `spec.pollInterval` watches, and the digests with which a change is noticed. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from ocelli_api.canonical_json import canonical_bytes, sha256_hex
from ocelli_api.classifier import Classifier, ClassifierSpec

POLLED_LIMIT = 100
"""Addresses of one Classifier."""
_DIGEST_LENGTH = 10
_SECONDS = {"m": 60, "h": 3600}


def parse_interval(text: str) -> int:
    """Seconds of an interval such as `15m` or `6h`, as the CRD allows them."""
    return int(text[:-1]) * _SECONDS[text[-1]]


def find_polled_urls(spec: ClassifierSpec) -> tuple[str, ...]:
    """The addresses to poll, each once, in the order of the spec: those of sources that may change.

    The CRD allows none of them to need a Secret, or to be in a bucket or a file.
    """
    return tuple(
        dict.fromkeys(
            source.url for source in spec.sources if source.url is not None and source.sha256 is None and not source.erased
        )
    )


def hash_addresses(urls: tuple[str, ...]) -> str:
    """Identifies the addresses that a poll was about."""
    return sha256_hex(canonical_bytes({"urls": list(urls)}))[:_DIGEST_LENGTH]


def hash_validators(validators: Mapping[str, str]) -> str:
    """Identifies the contents of all addresses; `validators` has what their servers say about each."""
    return sha256_hex(canonical_bytes(dict(validators)))[:_DIGEST_LENGTH]


def needs_poll(classifier: Classifier) -> bool:
    """Whether its sources were never polled, or were others then."""
    if classifier.spec.poll_interval is None:
        return False
    urls, seen = find_polled_urls(classifier.spec), classifier.status.observed_sources
    return bool(urls) and (seen is None or seen.addresses != hash_addresses(urls))


def find_seen_digest(classifier: Classifier) -> str | None:
    """The digest of the contents at the last poll of these addresses, even if polling has stopped; None: never polled."""
    seen = classifier.status.observed_sources
    if seen is None or seen.addresses != hash_addresses(find_polled_urls(classifier.spec)):
        return None
    return seen.digest
