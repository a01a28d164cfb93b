"""Credential sets: how they are written into a Secret, and how the mounted Secret is read.

`python -m ocelli_gateway.credentials add …` prints a Secret that holds one more set, `remove …` a patch that takes one out.
Passwords are kept as slow hashes (scrypt), API keys as SHA-256: a key is drawn at random, so that guessing it is in vain, while
people choose passwords.
"""

from __future__ import annotations

import argparse
import base64
import binascii
import getpass
import hashlib
import hmac
import json
import re
import secrets
import sys
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from ocelli_gateway.quotas import NO_QUOTA, Quota, QuotaValueError

API_KEY_USER = "apikey"
SECRET_NAME = "ocelli-credentials"
SECRET_NAMESPACE = "ocelli-system"
PASSWORD_BYTES_LIMIT = 1024
_NAMESPACE = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", re.ASCII)
_SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)
_SCRYPT = re.compile(r"scrypt\$n=(\d{1,8}),r=(\d{1,3}),p=(\d{1,3})\$([A-Za-z0-9+/=]+)\$([A-Za-z0-9+/=]+)", re.ASCII)
_MEMORY_LIMIT_BYTES = 256 * 1024 * 1024


class CredentialSetError(Exception):
    """A credential set cannot be used. The message says the fact and the remedy, and never holds the secret."""


@dataclass(frozen=True, kw_only=True)
class PasswordHash:
    """A password as scrypt keeps it. The parameters travel with the hash, so that they may grow."""

    cost: int
    block_size: int
    parallelism: int
    salt: bytes
    digest: bytes

    @classmethod
    def of(cls, password: str) -> PasswordHash:
        """Hash a password with a fresh salt: 32 MiB of memory, about 80 ms."""
        salt = secrets.token_bytes(16)
        unfinished = cls(cost=2**15, block_size=8, parallelism=1, salt=salt, digest=bytes(32))
        return cls(cost=2**15, block_size=8, parallelism=1, salt=salt, digest=unfinished._compute(password))

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
        """Whether it is this password. Slow on purpose; compares in constant time."""
        return hmac.compare_digest(self._compute(password), self.digest)

    def unmatchable(self) -> PasswordHash:
        """One that no password is known for, and that costs the same to check."""
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
    """Who may log in, and as whom: the namespace is the tenant, the owner id is what v3 shows."""

    user: str
    password_hash: PasswordHash | None
    """None: the API key doubles as password."""
    api_key_sha256: str | None
    """Of a separate API key; None: the password doubles as API key."""
    namespace: str
    owner: str
    quota: Quota = NO_QUOTA
    """What the tenant may use, where the installation's own quota shall not hold."""

    @cached_property
    def fingerprint(self) -> str:
        """Sixteen hex digits that change with everything by which this set logs in."""
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
            # Control characters cannot be typed in; half of a surrogate pair could not even be compared.
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
            raise CredentialSetError(f"its namespace {namespace!r} is not a name of a namespace; correct it")
        if api_key is not None and not (isinstance(api_key, str) and _SHA256.fullmatch(api_key)):
            raise CredentialSetError("its apiKeySHA256 is not a SHA-256 of 64 lower-case hex digits; correct or remove it")
        return cls(
            user=user,
            password_hash=None if password_hash is None else PasswordHash.parse(password_hash),
            api_key_sha256=api_key,
            namespace=namespace,
            owner=document["owner"],
            quota=_parse_quota(document.get("quota")),
        )


def _parse_quota(document: object) -> Quota:
    try:
        return Quota.parse(document)
    except QuotaValueError as error:
        raise CredentialSetError(f"its quota {error}") from error


@dataclass(frozen=True, kw_only=True)
class CredentialsReading:
    """What a folder held: the sets that can be used, and a sentence for each entry that cannot."""

    sets: tuple[CredentialSet, ...]
    problems: tuple[str, ...]


def read_credentials(folder: Path, *, reserved_namespace: str = "") -> CredentialsReading:
    """Read every `*.json` file of a folder, in the order of their names. A broken one does not keep the others out.

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
            _check_beside(candidate, sets)
            if candidate.namespace == reserved_namespace:
                raise CredentialSetError(
                    f"its namespace {reserved_namespace} is that of the built-in classifiers; give the tenant one of its own"
                )
            sets.append(candidate)
        except CredentialSetError as error:
            problems.append(f"Credential set {path.name}: {error}")
        except (OSError, ValueError, RecursionError):
            problems.append(f"Credential set {path.name}: it is not readable JSON; correct it")
    return CredentialsReading(sets=tuple(sets), problems=tuple(problems))


def _check_beside(candidate: CredentialSet, others: Iterable[CredentialSet]) -> None:
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
    """A set with its secrets hashed; without a password the API key is both.

    Raises:
        CredentialSetError: a value may not be used.
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
    """SHA-256, as the set keeps it."""
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
    """The JSON patch that takes a user's entry out of the Secret; where there is none it is refused."""
    return [{"op": "remove", "path": f"/data/{_entry_name(user)}"}]


def _entry_name(user: str) -> str:
    # Keys of a Secret are ASCII, user names need not be.
    return f"{hashlib.sha256(user.encode()).hexdigest()[:16]}.json"


def main(arguments: list[str]) -> int:
    """The command line: prints what kubectl adds to the Secret, or takes out of it; the entries of others stay."""
    parser = argparse.ArgumentParser(prog="python -m ocelli_gateway.credentials", description=__doc__)
    commands = parser.add_subparsers(required=True, dest="command")
    add = commands.add_parser("add", help="print a Secret that adds one credential set, for kubectl apply --server-side")
    add.add_argument("--user", required=True)
    add.add_argument("--namespace", required=True, help="namespace of this user's classifiers; it must exist")
    add.add_argument("--owner", required=True, help="owner id that the API shows")
    add.add_argument("--password-stdin", action="store_true", help="read the password from standard input")
    add.add_argument("--api-key", action="store_true", help="draw a separate API key and print it on standard error")
    add.add_argument("--without-password", action="store_true", help="an API key alone, which doubles as password")
    add.add_argument(
        "--quota", action="append", default=[], metavar="NAME=NUMBER", help="such as classifiers=20; may come several times"
    )
    add.add_argument("--secret", default=SECRET_NAME, help="name of the Secret (%(default)s)")
    add.add_argument("--secret-namespace", default=SECRET_NAMESPACE, help="namespace of the Secret (%(default)s)")
    remove = commands.add_parser("remove", help="print a JSON patch that removes one credential set, for kubectl patch")
    remove.add_argument("--user", required=True)
    options = parser.parse_args(arguments)
    if options.command == "remove":
        print(json.dumps(build_removal_patch(options.user)))
        return 0
    try:
        return _add(options)
    except CredentialSetError as error:
        print(f"credential set of {options.user!r}: {error}", file=sys.stderr)
        return 1


def _add(options: argparse.Namespace) -> int:
    quota = _parse_quota(dict(map(_parse_quota_option, options.quota)))
    password = None
    if not options.without_password:
        password = sys.stdin.readline().rstrip("\r\n") if options.password_stdin else _ask_password()
    api_key = secrets.token_urlsafe(32) if options.api_key or options.without_password else None
    built = build_credential_set(
        user=options.user, password=password, namespace=options.namespace, owner=options.owner, api_key=api_key, quota=quota
    )
    namespace = options.namespace
    print(f"Where namespace {namespace} does not exist yet: kubectl create namespace {namespace}", file=sys.stderr)
    if api_key is not None:
        print(f"API key (shown only now): {api_key}", file=sys.stderr)
    secret = build_credentials_secret([built], name=options.secret, namespace=options.secret_namespace)
    print(json.dumps(secret, ensure_ascii=False, indent=2))
    return 0


def _ask_password() -> str:
    """Raises CredentialSetError where nobody can be asked."""
    try:
        with warnings.catch_warnings():
            # Without a terminal getpass would warn and then read standard input.
            warnings.simplefilter("error", getpass.GetPassWarning)
            return getpass.getpass("Password: ")
    except (EOFError, getpass.GetPassWarning) as error:
        raise CredentialSetError(
            "there is no terminal to ask for the password; use --password-stdin or --without-password"
        ) from error


def _parse_quota_option(text: str) -> tuple[str, int]:
    name, _, number = text.partition("=")
    if not (number.isascii() and number.isdigit()):
        raise CredentialSetError(f"--quota {text} is not NAME=NUMBER; give for example classifiers=20")
    return name, int(number)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
