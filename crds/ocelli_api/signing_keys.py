"""Keys that sign artifacts: Ed25519 (RFC 8032). Nothing is signed here: the operator needs no cryptographic library."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass, field

from ocelli_api.canonical_json import sha256_hex

_DER_PREFIX = bytes.fromhex("302a300506032b6570032100")
"""What SubjectPublicKeyInfo (RFC 8410) has in front of the 32 bytes of a public key of Ed25519."""
_KEY_BYTES = 32


@dataclass(frozen=True, kw_only=True)
class PublicKey:
    """A public key of Ed25519."""

    raw: bytes
    """bytes[32], see RFC 8032."""

    @property
    def key_id(self) -> str:
        """SHA-256 (hex) of its SubjectPublicKeyInfo: the name of the key in signatures and messages."""
        return sha256_hex(_DER_PREFIX + self.raw)

    def __str__(self) -> str:
        """As `parse_public_keys` reads it."""
        return base64.b64encode(_DER_PREFIX + self.raw).decode()


@dataclass(frozen=True)
class PrivateKeyText:
    """A private key as PEM. Its text is never shown."""

    pem: str = field(default="", repr=False)


def parse_public_keys(text: str) -> tuple[PublicKey, ...]:
    """Public keys, separated by commas, each as the line between BEGIN and END of its PEM file.

    Raises:
        ValueError: one is something else.
    """
    return tuple(_parse_public_key(item.strip()) for item in text.split(",") if item.strip())


def _parse_public_key(text: str) -> PublicKey:
    try:
        der = base64.b64decode(text, validate=True)
    except binascii.Error:
        der = b""
    if len(der) != len(_DER_PREFIX) + _KEY_BYTES or not der.startswith(_DER_PREFIX):
        raise ValueError(f"{text!r} is not a public key of Ed25519")
    return PublicKey(raw=der[len(_DER_PREFIX) :])
