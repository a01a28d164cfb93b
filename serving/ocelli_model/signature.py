"""Signatures of artifacts: who trained what is served.

`signature.json` next to an artifact is a DSSE envelope (https://github.com/secure-systems-lab/dsse, version 1) with signatures
of Ed25519. Its payload is a statement that names the artifact by namespace, classifier, revision and digest, so that a signed
artifact is refused in another place. It is written before `artifact.json`, which completes the artifact, and is not part of it.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ocelli_api.canonical_json import canonical_bytes
from ocelli_api.signing_keys import PublicKey
from ocelli_storage.documents import parse_document, read_document
from ocelli_storage.layout import SIGNATURE, ClassifierLocation
from ocelli_storage.object_store import ObjectNotFoundError, ObjectStore, ObjectTooLargeError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

PAYLOAD_TYPE = "application/vnd.ocelli.artifact+json"
_SIGN_AGAIN = "train the revision again, or sign it with python -m ocelli_model.sign"


class SignatureError(Exception):
    """An artifact is not signed by a trusted key. The message has fact and remedy."""


class SigningKeyError(Exception):
    """A signing key cannot be used. The message has fact and remedy, and never the key."""


@dataclass(frozen=True, kw_only=True)
class SignedArtifact:
    """What a signature is about."""

    location: ClassifierLocation
    revision: str
    digest: str
    """SHA-256 (hex) of `artifact.json`."""

    @property
    def key(self) -> str:
        """Key of its signature."""
        return self.location.artifact_key(self.revision, SIGNATURE)

    @property
    def payload(self) -> bytes:
        """The statement that is signed."""
        return canonical_bytes(
            {
                "namespace": self.location.namespace,
                "classifierID": self.location.classifier_id,
                "revision": self.revision,
                "artifactDigest": self.digest,
            }
        )


class Signer:
    """Signs with a private key."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self.public_key = PublicKey(raw=key.public_key().public_bytes_raw())

    @classmethod
    def parse(cls, pem: str) -> Signer:
        """The signer with a private key of Ed25519 in PEM (PKCS 8, not encrypted).

        Raises:
            SigningKeyError: it is something else.
        """
        # Imported on demand: installations without a key start faster.
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

        remedy = "make one with openssl genpkey -algorithm ed25519"
        try:
            key = load_pem_private_key(pem.encode(), password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            # Without the cause, which may quote the key.
            raise SigningKeyError(f"the signing key is not an unencrypted private key in PEM; {remedy}") from None
        if not isinstance(key, Ed25519PrivateKey):
            raise SigningKeyError(f"the signing key is not a key of Ed25519; {remedy}")
        return cls(key)

    def sign(self, payload: bytes) -> bytes:
        """The bytes of an envelope with one signature."""
        signature = {"keyid": self.public_key.key_id, "sig": _encode(self._key.sign(_authenticated(PAYLOAD_TYPE, payload)))}
        envelope = {"payload": _encode(payload), "payloadType": PAYLOAD_TYPE, "signatures": [signature]}
        return json.dumps(envelope, indent=1).encode()


async def save_signature(store: ObjectStore, artifact: SignedArtifact, signer: Signer) -> None:
    """Sign an artifact; an older signature is replaced. Raises StoreUnavailableError."""
    await store.put(artifact.key, signer.sign(artifact.payload))


async def verify_stored_signature(store: ObjectStore, artifact: SignedArtifact, trusted: Sequence[PublicKey]) -> None:
    """Check that a trusted key signed the artifact.

    Raises:
        SignatureError: none did.
        StoreUnavailableError: see there.
    """
    try:
        envelope = await read_document(store, artifact.key)
    except ObjectNotFoundError as error:
        raise SignatureError(f"it is not signed, and this installation uses only signed artifacts; {_SIGN_AGAIN}") from error
    except ObjectTooLargeError as error:
        raise SignatureError(f"{SIGNATURE} is too large; {_SIGN_AGAIN}") from error
    verify_envelope(envelope, artifact.payload, trusted)


def verify_envelope(envelope: bytes, payload: bytes, trusted: Sequence[PublicKey]) -> None:
    """Check that an envelope has this payload and a signature of it by a trusted key. Raises SignatureError."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        document = parse_document(envelope)
        kind, signed = str(document["payloadType"]), _decode(document["payload"])
        signatures = [(str(item.get("keyid")), _decode(item["sig"])) for item in document["signatures"]]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise SignatureError(f"{SIGNATURE} is not a signature; {_SIGN_AGAIN}") from error
    if (kind, signed) != (PAYLOAD_TYPE, payload):
        raise SignatureError(f"{SIGNATURE} is the signature of another artifact; {_SIGN_AGAIN}")
    message = _authenticated(kind, signed)
    # The key's id in the envelope is a hint only: anyone can write one.
    for _, signature in signatures:
        for key in trusted:
            try:
                Ed25519PublicKey.from_public_bytes(key.raw).verify(signature, message)
            except InvalidSignature:
                continue
            return
    names = " and ".join(name[:12] for name, _ in signatures) or "no key"
    expected = ", ".join(key.key_id[:12] for key in trusted)
    raise SignatureError(
        f"{SIGNATURE} has no valid signature by a trusted key (signed by {names}; trusted: {expected}); {_SIGN_AGAIN}"
    )


def _authenticated(kind: str, payload: bytes) -> bytes:
    """DSSE's pre-authentication encoding: the bytes that are signed."""
    return b"DSSEv1 %d %s %d %s" % (len(kind.encode()), kind.encode(), len(payload), payload)


def _encode(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _decode(text: str) -> bytes:
    return base64.b64decode(text, validate=True)
