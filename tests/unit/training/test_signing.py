"""A trainer that signs, and the keys that it refuses before it trains."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from ocelli_api.outcome import ExitCode
from ocelli_api.pods import Environment
from ocelli_model.artifact import load_artifact
from ocelli_model.signature import Signer

PRIVATE_KEY = Ed25519PrivateKey.from_private_bytes(bytes([1]) * 32)
PEM = PRIVATE_KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
PUBLIC_KEY = Signer(PRIVATE_KEY).public_key
OTHER_KEY = Signer(Ed25519PrivateKey.from_private_bytes(bytes([2]) * 32)).public_key


@pytest.fixture
def two_classes(trainer: Any, make_example_zip: Any) -> Any:
    trainer.add_class("blue", trainer.upload(make_example_zip(12)))
    trainer.add_class("red", trainer.upload(make_example_zip(12, first_seed=50, red=190)))
    return trainer


def refusal(trainer: Any) -> str:
    """The message of an attempt that the Job does not repeat."""
    outcome, exit_code = trainer.run()
    assert exit_code is ExitCode.MISCONFIGURED
    assert outcome.message.startswith("Classifier team-a/dogs: ")
    return str(outcome.message)


@pytest.mark.slow
def test_a_trainer_with_a_key_signs_its_artifact(two_classes: Any) -> None:
    two_classes.environment |= {Environment.SIGNING_KEY: PEM, Environment.SIGNING_PUBLIC_KEYS: str(PUBLIC_KEY)}
    outcome, _ = two_classes.run()
    load = load_artifact(two_classes.store, two_classes.location, two_classes.revision, trusted=(PUBLIC_KEY,))
    assert asyncio.run(load).digest == outcome.artifact_digest


@pytest.mark.slow
def test_an_unsigned_artifact_of_an_earlier_attempt_is_trained_again(two_classes: Any) -> None:
    first, _ = two_classes.run(attempt=1)
    two_classes.environment |= {Environment.SIGNING_KEY: PEM, Environment.SIGNING_PUBLIC_KEYS: str(PUBLIC_KEY)}
    second, _ = two_classes.run(attempt=2)
    assert "Reused" not in second.message
    assert second.artifact_digest == first.artifact_digest


def test_a_key_that_servers_do_not_trust_is_refused_before_training(two_classes: Any) -> None:
    two_classes.environment |= {Environment.SIGNING_KEY: PEM, Environment.SIGNING_PUBLIC_KEYS: str(OTHER_KEY)}
    message = refusal(two_classes)
    assert f"the signing key's public key is {PUBLIC_KEY}, which inference servers do not trust" in message


def test_a_missing_key_is_refused_where_servers_verify(two_classes: Any) -> None:
    two_classes.environment[Environment.SIGNING_PUBLIC_KEYS] = str(PUBLIC_KEY)
    assert f"set {Environment.SIGNING_KEY} from the Secret" in refusal(two_classes)


def test_a_damaged_key_is_refused_without_being_shown(two_classes: Any) -> None:
    two_classes.environment[Environment.SIGNING_KEY] = "-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----"
    message = refusal(two_classes)
    assert "make one with openssl genpkey -algorithm ed25519" in message
    assert "c2VjcmV0" not in message
