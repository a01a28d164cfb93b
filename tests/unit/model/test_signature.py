"""Signatures of artifacts: which ones are trusted, and the command that signs what is stored."""

from __future__ import annotations

import asyncio
import base64
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from ocelli_api.signing_keys import PublicKey, parse_public_keys
from ocelli_model.artifact import ArtifactError, load_artifact, save_artifact
from ocelli_model.sign import main
from ocelli_model.signature import (
    SignatureError,
    SignedArtifact,
    Signer,
    SigningKeyError,
    verify_envelope,
)
from ocelli_storage.layout import ARTIFACT_METADATA, SIGNATURE, ClassifierLocation
from ocelli_storage.store_url import open_store
from tests.unit.model.test_artifact import LOCATION, REVISION, make_artifact


def make_signer(seed: int = 1) -> Signer:
    return Signer(Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32))


def to_pem(key: Any) -> str:
    return str(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode())


SIGNER, OTHER = make_signer(1), make_signer(2)
TRUSTED = (SIGNER.public_key,)
WHAT = SignedArtifact(location=LOCATION, revision=REVISION, digest="ab" * 32)


def refusal(envelope: bytes, *, what: SignedArtifact = WHAT, trusted: tuple[PublicKey, ...] = TRUSTED) -> str:
    with pytest.raises(SignatureError) as caught:
        verify_envelope(envelope, what.payload, trusted)
    return str(caught.value)


def test_a_signature_by_a_trusted_key_is_accepted() -> None:
    verify_envelope(SIGNER.sign(WHAT.payload), WHAT.payload, TRUSTED)


def test_with_two_trusted_keys_either_is_accepted() -> None:
    for signer in (SIGNER, OTHER):
        verify_envelope(signer.sign(WHAT.payload), WHAT.payload, (OTHER.public_key, SIGNER.public_key))


def test_a_signature_by_another_key_is_refused_with_both_named() -> None:
    message = refusal(OTHER.sign(WHAT.payload))
    assert OTHER.public_key.key_id[:12] in message
    assert SIGNER.public_key.key_id[:12] in message
    assert "sign it with python -m ocelli_model.sign" in message


def test_the_name_of_a_trusted_key_does_not_make_a_signature_valid() -> None:
    envelope = json.loads(OTHER.sign(WHAT.payload))
    envelope["signatures"][0]["keyid"] = SIGNER.public_key.key_id
    assert "no valid signature" in refusal(json.dumps(envelope).encode())


@pytest.mark.parametrize(
    "elsewhere",
    [
        SignedArtifact(location=LOCATION, revision=REVISION, digest="cd" * 32),
        SignedArtifact(location=LOCATION, revision="ffffffffff", digest=WHAT.digest),
        SignedArtifact(
            location=ClassifierLocation(namespace="other", classifier_id=LOCATION.classifier_id),
            revision=REVISION,
            digest=WHAT.digest,
        ),
    ],
    ids=["digest", "revision", "namespace"],
)
def test_the_signature_of_another_artifact_is_refused(elsewhere: SignedArtifact) -> None:
    assert "the signature of another artifact" in refusal(SIGNER.sign(elsewhere.payload))


def test_a_payload_that_was_changed_after_signing_is_refused() -> None:
    envelope = json.loads(SIGNER.sign(b"something else"))
    envelope["payload"] = base64.b64encode(WHAT.payload).decode()
    assert "no valid signature" in refusal(json.dumps(envelope).encode())


@pytest.mark.parametrize("envelope", [b"", b"[]", b"{}", b'{"payload": 1, "payloadType": "", "signatures": []}', b"\xff"])
def test_what_is_not_an_envelope_is_refused(envelope: bytes) -> None:
    assert "is not a signature" in refusal(envelope)


def test_openssl_verifies_the_signature(tmp_path: Path) -> None:
    envelope = json.loads(SIGNER.sign(WHAT.payload))
    (tmp_path / "signature").write_bytes(base64.b64decode(envelope["signatures"][0]["sig"]))
    kind, payload = envelope["payloadType"], WHAT.payload.decode()
    (tmp_path / "message").write_text(f"DSSEv1 {len(kind)} {kind} {len(payload)} {payload}")
    (tmp_path / "key.pem").write_text(f"-----BEGIN PUBLIC KEY-----\n{SIGNER.public_key}\n-----END PUBLIC KEY-----\n")
    command = [
        "openssl",
        "pkeyutl",
        "-verify",
        "-pubin",
        "-inkey",
        "key.pem",
        "-rawin",
        "-in",
        "message",
        "-sigfile",
        "signature",
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_public_key_is_the_line_of_its_pem_file() -> None:
    key = Ed25519PrivateKey.from_private_bytes(bytes([1]) * 32).public_key()
    line = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode().splitlines()[1]
    assert parse_public_keys(f"{line}, {OTHER.public_key}") == (SIGNER.public_key, OTHER.public_key)
    assert str(SIGNER.public_key) == line


@pytest.mark.parametrize("text", ["x", "AAAA", str(SIGNER.public_key)[:-4], "-----BEGIN PUBLIC KEY-----"])
def test_another_text_is_not_a_public_key(text: str) -> None:
    with pytest.raises(ValueError, match="is not a public key of Ed25519"):
        parse_public_keys(text)


def test_a_private_key_is_read_from_pem() -> None:
    assert Signer.parse(to_pem(Ed25519PrivateKey.from_private_bytes(bytes([1]) * 32))).public_key == SIGNER.public_key


def test_a_key_of_another_kind_is_refused_without_being_shown() -> None:
    pem = to_pem(generate_private_key(public_exponent=65537, key_size=2048))
    for text, fact in ((pem, "not a key of Ed25519"), ("secret words", "not an unencrypted private key")):
        with pytest.raises(SigningKeyError, match=fact) as caught:
            Signer.parse(text)
        assert "secret words" not in str(caught.value)
        assert "openssl genpkey -algorithm ed25519" in str(caught.value)


class Stored:
    """An artifact in a store."""

    def __init__(self, folder: Path, signer: Signer | None) -> None:
        self.url = folder.as_uri()
        self.store = open_store(self.url)
        self.digest = asyncio.run(save_artifact(self.store, LOCATION, make_artifact(), signer))

    def load(self, *trusted: PublicKey) -> str:
        return asyncio.run(load_artifact(self.store, LOCATION, REVISION, trusted=trusted)).digest

    def refusal(self, *trusted: PublicKey) -> str:
        with pytest.raises(ArtifactError) as caught:
            self.load(*trusted)
        return str(caught.value)


def test_a_signed_artifact_is_loaded(tmp_path: Path) -> None:
    stored = Stored(tmp_path, SIGNER)
    assert stored.load(*TRUSTED) == stored.digest


def test_an_unsigned_artifact_is_refused_with_the_remedy(tmp_path: Path) -> None:
    message = Stored(tmp_path, None).refusal(*TRUSTED)
    assert message.startswith(f"artifact of {LOCATION.classifier_id}, revision {REVISION}: it is not signed")
    assert "python -m ocelli_model.sign" in message


def test_an_unsigned_artifact_is_loaded_where_no_key_is_trusted(tmp_path: Path) -> None:
    stored = Stored(tmp_path, None)
    assert stored.load() == stored.digest


def test_an_artifact_that_was_changed_with_its_digests_is_refused(tmp_path: Path) -> None:
    stored = Stored(tmp_path, SIGNER)
    path = tmp_path / LOCATION.artifact_key(REVISION, ARTIFACT_METADATA)
    path.write_text(json.dumps({**json.loads(path.read_bytes()), "metrics": {"accuracy": 1}}))
    assert "the signature of another artifact" in stored.refusal(*TRUSTED)


def test_the_signature_changes_no_digest(tmp_path: Path) -> None:
    assert Stored(tmp_path / "a", SIGNER).digest == Stored(tmp_path / "b", None).digest


def run_sign(stored: Stored, folder: Path, *arguments: str) -> int:
    path = folder / "key.pem"
    path.write_text(to_pem(Ed25519PrivateKey.from_private_bytes(bytes([1]) * 32)))
    return main(["--store", stored.url, "--key", str(path), *arguments])


def test_the_command_signs_what_was_trained_before(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stored = Stored(tmp_path / "store", None)
    assert run_sign(stored, tmp_path) == 0
    assert stored.load(*TRUSTED) == stored.digest
    assert capsys.readouterr().out == f"{LOCATION.namespace} {LOCATION.classifier_id} {REVISION} {stored.digest}\n"


def test_the_command_replaces_the_signature_of_an_older_key(tmp_path: Path) -> None:
    stored = Stored(tmp_path / "store", OTHER)
    assert run_sign(stored, tmp_path) == 0
    assert stored.load(*TRUSTED) == stored.digest


def test_the_command_signs_no_damaged_artifact(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stored = Stored(tmp_path / "store", None)
    (tmp_path / "store" / LOCATION.artifact_key(REVISION, ARTIFACT_METADATA)).write_text("{}")
    assert run_sign(stored, tmp_path) == 1
    assert REVISION in capsys.readouterr().err
    assert not asyncio.run(stored.store.exists(LOCATION.artifact_key(REVISION, SIGNATURE)))


def test_the_command_signs_only_the_namespace_that_it_is_given(tmp_path: Path) -> None:
    stored = Stored(tmp_path / "store", None)
    assert run_sign(stored, tmp_path, "--namespace", "another") == 0
    assert "it is not signed" in stored.refusal(*TRUSTED)
