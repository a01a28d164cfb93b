"""Keys and certificates of one local cluster.

Owns the two authorities (one for the API, one for etcd, so that API clients have no access to etcd), the leaf certificates
and the key that signs ServiceAccount tokens, all as files in one folder. Authorities and the token key are kept over a
restart, so that tokens and kubeconfigs stay valid; leaf certificates are issued at each start, because addresses may have
changed. It must not know which program uses which certificate.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

AUTHORITY_LIFETIME = timedelta(days=3650)
LEAF_LIFETIME = timedelta(days=365)


@dataclass(frozen=True, kw_only=True)
class KeyPair:
    """Paths of a certificate and its private key, in PEM format."""

    certificate: Path
    key: Path


@dataclass(frozen=True, kw_only=True)
class Subject:
    """The subject of a leaf certificate: user name, groups, and the names and addresses of a server."""

    name: str
    groups: Sequence[str] = ()
    serves: Sequence[str] = ()


class Authority:
    """A certificate authority in `folder`, loaded if it exists, created if not."""

    def __init__(self, folder: Path, name: str) -> None:
        self.pair = KeyPair(certificate=folder / f"{name}.crt", key=folder / f"{name}.key")
        self._folder = folder
        if self.pair.certificate.exists() and self.pair.key.exists():
            self._key = load_private_key(self.pair.key)
            self._certificate = x509.load_pem_x509_certificate(self.pair.certificate.read_bytes())
            return
        self._key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"ocelli-local-{name}")])
        self._certificate = (
            build_certificate(subject, subject, self._key.public_key(), AUTHORITY_LIFETIME)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(
                x509.KeyUsage(
                    digital_signature=True,
                    key_cert_sign=True,
                    crl_sign=True,
                    content_commitment=False,
                    key_encipherment=False,
                    data_encipherment=False,
                    key_agreement=False,
                    encipher_only=False,
                    decipher_only=False,
                ),
                critical=True,
            )
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(self._key.public_key()), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        save_private_key(self.pair.key, self._key)
        self.pair.certificate.write_bytes(self._certificate.public_bytes(serialization.Encoding.PEM))

    def issue(self, file_name: str, subject: Subject) -> KeyPair:
        """A new certificate for clients and servers; existing files are replaced."""
        key = ec.generate_private_key(ec.SECP256R1())
        attributes = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in subject.groups]
        attributes.append(x509.NameAttribute(NameOID.COMMON_NAME, subject.name))
        builder = (
            build_certificate(x509.Name(attributes), self._certificate.subject, key.public_key(), LEAF_LIFETIME)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(
                x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]),
                critical=False,
            )
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
        )
        if subject.serves:
            builder = builder.add_extension(
                x509.SubjectAlternativeName([build_general_name(name) for name in subject.serves]), critical=False
            )
        pair = KeyPair(certificate=self._folder / f"{file_name}.crt", key=self._folder / f"{file_name}.key")
        save_private_key(pair.key, key)
        certificate = builder.sign(self._key, hashes.SHA256())
        pair.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        return pair


def build_certificate(
    subject: x509.Name, issuer: x509.Name, public_key: ec.EllipticCurvePublicKey, lifetime: timedelta
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        # A new certificate must be valid even if the clock is set back a little.
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + lifetime)
    )


def build_general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def load_private_key(path: Path) -> ec.EllipticCurvePrivateKey:
    key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise TypeError(f"{path} is not an elliptic curve key; delete the state folder and start again")
    return key


def save_private_key(path: Path, key: ec.EllipticCurvePrivateKey) -> None:
    """Write `key`, readable by the owner only at any time."""
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path.unlink(missing_ok=True)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(pem)


def ensure_token_key(folder: Path) -> KeyPair:
    """The key pair that signs ServiceAccount tokens; `certificate` is the file of the public key."""
    pair = KeyPair(certificate=folder / "service-account.pub", key=folder / "service-account.key")
    if not pair.key.exists() or not pair.certificate.exists():
        key = ec.generate_private_key(ec.SECP256R1())
        save_private_key(pair.key, key)
        pair.certificate.write_bytes(
            key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        )
    return pair
