"""`python -m ocelli_gateway.credentials add …` prints a Secret with one more credential set, `remove …` a patch that
removes one.
"""

from __future__ import annotations

import argparse
import getpass
import json
import secrets
import sys
import warnings

from ocelli_gateway.credential_sets import (
    SECRET_NAME,
    SECRET_NAMESPACE,
    CredentialSetError,
    build_credential_set,
    build_credentials_secret,
    build_removal_patch,
    parse_quota,
)


def main(arguments: list[str]) -> int:
    """The command line: prints what kubectl adds to the Secret or removes from it. Other entries stay."""
    parser = argparse.ArgumentParser(prog="python -m ocelli_gateway.credentials", description=__doc__)
    commands = parser.add_subparsers(required=True, dest="command")
    add = commands.add_parser("add", help="print a Secret that adds one credential set, for kubectl apply --server-side")
    add.add_argument("--user", required=True)
    add.add_argument("--namespace", required=True, help="namespace of this user's classifiers; it must exist")
    add.add_argument("--owner", required=True, help="owner id that the API shows")
    add.add_argument("--password-stdin", action="store_true", help="read the password from standard input")
    add.add_argument("--api-key", action="store_true", help="create a separate API key and print it to standard error")
    add.add_argument("--without-password", action="store_true", help="only an API key, which is also the password")
    add.add_argument(
        "--quota", action="append", default=[], metavar="NAME=NUMBER", help="such as classifiers=20; may be repeated"
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
    quota = parse_quota(dict(map(_parse_quota_option, options.quota)))
    password = None
    if not options.without_password:
        password = sys.stdin.readline().rstrip("\r\n") if options.password_stdin else _ask_password()
    api_key = secrets.token_urlsafe(32) if options.api_key or options.without_password else None
    built = build_credential_set(
        user=options.user, password=password, namespace=options.namespace, owner=options.owner, api_key=api_key, quota=quota
    )
    namespace = options.namespace
    print(f"If namespace {namespace} does not exist yet: kubectl create namespace {namespace}", file=sys.stderr)
    if api_key is not None:
        print(f"API key (shown only now): {api_key}", file=sys.stderr)
    secret = build_credentials_secret([built], name=options.secret, namespace=options.secret_namespace)
    print(json.dumps(secret, ensure_ascii=False, indent=2))
    return 0


def _ask_password() -> str:
    """Raises CredentialSetError where there is no terminal."""
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
