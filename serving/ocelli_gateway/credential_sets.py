"""Credential sets: how they are written into a Secret, and how the mounted Secret is read.

Passwords are kept as slow hashes (scrypt), because people choose them. API keys are random, so that SHA-256 is enough.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import re
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from ocelli_api.digests import is_digest
from ocelli_gateway.quotas import NO_QUOTA, Quota, QuotaValueError

API_KEY_USER = "apikey"
SECRET_NAME = "ocelli-credentials"
SECRET_NAMESPACE = "ocelli-system"
PASSWORD_BYTES_LIMIT = 1024
_NAMESPACE = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", re.ASCII)
_SCRYPT = re.compile(r"scrypt\$n=(\d{1,8}),r=(\d{1,3}),p=(\d{1,3})\$([A-Za-z0-9+/=]+)\$([A-Za-z0-9+/=]+)", re.ASCII)
_MEMORY_LIMIT_BYTES = 256 * 1024 * 1024


class CredentialSetError(Exception):
    """A credential set cannot be used. The message has the fact and the remedy, and never the secret."""


@dataclass(frozen=True, kw_only=True)
class PasswordHash:
    """The scrypt hash of a password. It includes its parameters, so that new hashes can have stronger ones."""

    cost: int
    block_size: int
    parallelism: int
    salt: bytes
    digest: bytes

    @classmethod
    def of(cls, password: str) -> PasswordHash:
        """Hash a password with a fresh salt: 32 MiB of memory, about 80 ms."""
        hashed = cls.of_no_password()
        return replace(hashed, digest=hashed._compute(password))

    @classmethod
    def of_no_password(cls) -> PasswordHash:
        """A hash of no known password that costs as much to check as that of a new password. It costs nothing to make."""
        return cls(cost=2**15, block_size=8, parallelism=1, salt=secrets.token_bytes(16), digest=secrets.token_bytes(32))

    @classmethod
    def parse(cls, text: str) -> PasswordHash:
        """Type `scrypt$n=…,r=…,p=…$salt$digest`. Raises CredentialSetError."""
        match = _SCRYPT.fullmatch(text)
        try:
            if match is None:
                raise ValueError
            cost, block_size, parallelism = int(match[1]), int(match[2]), int(match[3])
            salt, digest = base64.b64decode(match[4], validate=True), base64.b64decode(match[5], validate=True)
            if cost < 2 or cost & (cost - 1) or not block_size or not parallelism or len(digest) < 16:
                raise ValueError
            if 128 * cost * block_size * parallelism > _MEMORY_LIMIT_BYTES // 2:
                raise ValueError
        except (ValueError, binascii.Error):
            message = "its passwordHash is not a scrypt hash; make the set with `python -m ocelli_gateway.credentials add`"
            raise CredentialSetError(message) from None
        return cls(cost=cost, block_size=block_size, parallelism=parallelism, salt=salt, digest=digest)

    def __str__(self) -> str:
        salt, digest = (base64.b64encode(value).decode() for value in (self.salt, self.digest))
        return f"scrypt$n={self.cost},r={self.block_size},p={self.parallelism}${salt}${digest}"

    def matches(self, password: str) -> bool:
        """Whether it is this password. Slow by design; compares in constant time."""
        return hmac.compare_digest(self._compute(password), self.digest)

    def unmatchable(self) -> PasswordHash:
        """A hash of no known password that costs the same to check."""
        return replace(self, salt=secrets.token_bytes(len(self.salt)), digest=secrets.token_bytes(len(self.digest)))

    def _compute(self, password: str) -> bytes:
        return hashlib.scrypt(
            password.encode(),
            salt=self.salt,
            n=self.cost,
            r=self.block_size,
            p=self.parallelism,
            maxmem=_MEMORY_LIMIT_BYTES,
            dklen=len(self.digest),
        )


@dataclass(frozen=True, kw_only=True)
class CredentialSet:
    """The login of one user. The namespace is the tenant; v3 shows the owner id."""

    user: str
    password_hash: PasswordHash | None
    """None: the API key is also the password."""
    api_key_sha256: str | None
    """Of a separate API key; None: the password is also the API key."""
    namespace: str
    owner: str
    quota: Quota = NO_QUOTA
    """The quota of the tenant, where it differs from the installation's."""

    @cached_property
    def fingerprint(self) -> str:
        """Sixteen hex digits that change with every part of the set except its quota."""
        document = {key: value for key, value in self.to_json().items() if key != "quota"}
        return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()[:16]

    def to_json(self) -> dict[str, Any]:
        """The document of one entry of the Secret."""
        document = {
            "user": self.user,
            "passwordHash": None if self.password_hash is None else str(self.password_hash),
            "apiKeySHA256": self.api_key_sha256,
            "namespace": self.namespace,
            "owner": self.owner,
            "quota": self.quota.to_json() or None,
        }
        return {key: value for key, value in document.items() if value is not None}

    @classmethod
    def parse(cls, document: object) -> CredentialSet:
        """Type the document of one entry. Raises CredentialSetError."""
        if not isinstance(document, Mapping):
            raise CredentialSetError("it is not a JSON object")
        if document.get("passwordHash") is None and document.get("apiKeySHA256") is None:
            raise CredentialSetError("it has neither passwordHash nor apiKeySHA256; add one")
        for key in ("user", "namespace", "owner"):
            value = document.get(key)
            if not isinstance(value, str) or not value:
                raise CredentialSetError(f"it lacks the text {key}; add it")
            # Control characters cannot be typed, and half of a surrogate pair cannot be compared.
            if not value.isprintable():
                raise CredentialSetError(f"its {key} has characters that cannot be shown; correct it")
        user, namespace, api_key = document["user"], document["namespace"], document.get("apiKeySHA256")
        password_hash = document.get("passwordHash")
        if password_hash is not None and not isinstance(password_hash, str):
            raise CredentialSetError(
                "its passwordHash is not a text; make the set with `python -m ocelli_gateway.credentials add`"
            )
        if user == API_KEY_USER or ":" in user:
            raise CredentialSetError(
                f"its user {user!r} cannot log in; choose one that is not {API_KEY_USER!r} and has no colon"
            )
        if not _NAMESPACE.fullmatch(namespace):
            raise CredentialSetError(f"its namespace {namespace!r} is not a valid name of a namespace; correct it")
        if api_key is not None and not is_digest(api_key):
            raise CredentialSetError("its apiKeySHA256 is not a SHA-256 of 64 lower-case hex digits; correct or remove it")
        return cls(
            user=user,
            password_hash=None if password_hash is None else PasswordHash.parse(password_hash),
            api_key_sha256=api_key,
            namespace=namespace,
            owner=document["owner"],
            quota=parse_quota(document.get("quota")),
        )


def parse_quota(document: object) -> Quota:
    """Type the quota of a set. Raises CredentialSetError."""
    try:
        return Quota.parse(document)
    except QuotaValueError as error:
        raise CredentialSetError(f"its quota {error}") from error


@dataclass(frozen=True, kw_only=True)
class CredentialsReading:
    """The contents of a folder: the sets that can be used, and a sentence for each entry that cannot."""

    sets: tuple[CredentialSet, ...]
    problems: tuple[str, ...]


def read_credentials(folder: Path, *, reserved_namespace: str = "") -> CredentialsReading:
    """Read every `*.json` file of a folder, in the order of their names. Broken files do not affect the others.

    No tenant may have the reserved namespace.
    """
    sets: list[CredentialSet] = []
    problems: list[str] = []
    try:
        files = sorted(path for path in folder.iterdir() if path.suffix == ".json" and not path.name.startswith("."))
    except OSError as error:
        return CredentialsReading(
            sets=(), problems=(f"Credentials folder {folder}: cannot be read: {error.strerror}; mount it",)
        )
    for path in files:
        try:
            candidate = CredentialSet.parse(json.loads(path.read_bytes()))
            _check_against(candidate, sets)
            if candidate.namespace == reserved_namespace:
                raise CredentialSetError(
                    f"its namespace {reserved_namespace} is that of the built-in classifiers; give the tenant another one"
                )
            sets.append(candidate)
        except CredentialSetError as error:
            problems.append(f"Credential set {path.name}: {error}")
        except (OSError, ValueError, RecursionError):
            problems.append(f"Credential set {path.name}: it is not readable JSON; correct it")
    return CredentialsReading(sets=tuple(sets), problems=tuple(problems))


def _check_against(candidate: CredentialSet, others: Iterable[CredentialSet]) -> None:
    for other in others:
        if other.user == candidate.user:
            raise CredentialSetError(f"the user {candidate.user!r} is in another set as well; remove one of them")
        # A namespace is one tenant: two owners in it would see each other's classifiers.
        if other.namespace == candidate.namespace and other.owner != candidate.owner:
            raise CredentialSetError(
                f"namespace {candidate.namespace} has the owner {other.owner!r} in another set; use that owner, or another "
                "namespace"
            )


def build_credential_set(
    *, user: str, password: str | None, namespace: str, owner: str, api_key: str | None = None, quota: Quota = NO_QUOTA
) -> CredentialSet:
    """A set with its secrets hashed; without a password the API key is used for both.

    Raises:
        CredentialSetError: a value is not allowed.
    """
    if password is not None and not 0 < len(password.encode()) <= PASSWORD_BYTES_LIMIT:
        raise CredentialSetError(f"a password has 1 to {PASSWORD_BYTES_LIMIT} bytes; choose another one")
    digest = None if api_key is None else hash_api_key(api_key)
    built = CredentialSet(
        user=user,
        password_hash=None if password is None else PasswordHash.of(password),
        api_key_sha256=digest,
        namespace=namespace,
        owner=owner,
        quota=quota,
    )
    return CredentialSet.parse(built.to_json())


def hash_api_key(api_key: str) -> str:
    """The SHA-256 that a set holds."""
    return hashlib.sha256(api_key.encode()).hexdigest()


def build_credentials_secret(
    sets: Iterable[CredentialSet], *, name: str = SECRET_NAME, namespace: str = SECRET_NAMESPACE
) -> dict[str, Any]:
    """The Secret that the gateway mounts, with one entry for each set."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": namespace, "labels": {"app.kubernetes.io/part-of": "ocelli"}},
        "type": "Opaque",
        "stringData": {_entry_name(item.user): json.dumps(item.to_json(), ensure_ascii=False) for item in sets},
    }


def build_removal_patch(user: str) -> list[dict[str, str]]:
    """The JSON patch that removes a user's entry from the Secret; the API server refuses it for unknown users."""
    return [{"op": "remove", "path": f"/data/{_entry_name(user)}"}]


def _entry_name(user: str) -> str:
    # Keys of a Secret are ASCII; user names may not be.
    return f"{hashlib.sha256(user.encode()).hexdigest()[:16]}.json"
