"""Credential sets and their checks."""

from __future__ import annotations

import asyncio
import contextlib
import io
import itertools
import json
import logging
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ocelli_api.log_lines import JsonFormatter
from ocelli_cluster.resources import ObjectKey
from ocelli_gateway import auth, credentials, login_turns
from ocelli_gateway.auth import Authenticator, Caller
from ocelli_gateway.credential_sets import (
    CredentialSet,
    CredentialSetError,
    PasswordHash,
    build_credential_set,
    build_credentials_secret,
    hash_api_key,
    read_credentials,
)
from ocelli_gateway.login_turns import FREE_FAILURES
from ocelli_gateway.refusals import TooManyRequestsError, UnauthorizedError
from ocelli_gateway.token_keys import TokenKeys
from ocelli_gateway.tokens import Tokens
from tests.gateway_harness.in_memory_cluster import InMemoryCluster
from tests.gateway_harness.v3_client import basic

GOOD = build_credential_set(user="anna", password="secret-of-anna", namespace="team-a", owner="owner-a")


@pytest.fixture(autouse=True)
def short_delays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Removes the delays of answers to wrong passwords."""
    monkeypatch.setattr(login_turns, "LONGEST_FAILURE_DELAY_SECONDS", 0.2)


def write(folder: Path, name: str, document: Any) -> None:
    (folder / name).write_text(document if isinstance(document, str) else json.dumps(document))


def with_values(**values: Any) -> dict[str, Any]:
    return {**GOOD.to_json(), **values}


def test_hash_survives_being_written() -> None:
    stored = PasswordHash.parse(str(PasswordHash.of("pässwörd")))
    assert (stored.matches("pässwörd"), stored.matches("pässwörd ")) == (True, False)


def test_same_password_is_hashed_differently_each_time() -> None:
    assert str(PasswordHash.of("x")) != str(PasswordHash.of("x"))


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ("no json", "JSON"),
        ([], "not a JSON object"),
        (with_values(user=""), "user"),
        (with_values(user="apikey"), "apikey"),
        (with_values(user="a:b"), "colon"),
        (with_values(namespace="No_Namespace"), "namespace"),
        (with_values(owner=None), "owner"),
        (with_values(passwordHash="secret-of-anna"), "scrypt"),
        (with_values(passwordHash="scrypt$n=1073741824,r=8,p=1$AAAA$AAAAAAAAAAAAAAAAAAAAAAAA"), "scrypt"),
        (with_values(apiKeySHA256="secret-of-anna"), "SHA-256"),
        (with_values(passwordHash=None), "neither passwordHash nor apiKeySHA256"),
        (with_values(passwordHash=7), "passwordHash is not a text"),
        (with_values(user="\ud83d"), "user"),
        (with_values(owner="a\nb"), "owner"),
        ("[" * 100_000, "JSON"),
    ],
)
def test_broken_entry_is_named_without_its_secret_and_does_not_affect_others(tmp_path: Path, document: Any, words: str) -> None:
    write(tmp_path, "a.json", document)
    write(tmp_path, "b.json", with_values(user="bert"))
    reading = read_credentials(tmp_path)
    assert [item.user for item in reading.sets] == ["bert"]
    assert len(reading.problems) == 1
    assert words in reading.problems[0]
    assert "a.json" in reading.problems[0]
    assert "secret-of-anna" not in reading.problems[0]


@pytest.mark.parametrize(
    ("second", "word"),
    [(with_values(namespace="team-b"), "anna"), (with_values(user="bert", owner="other"), "owner")],
    ids=["the same user", "another owner of the namespace"],
)
def test_entry_that_contradicts_another_is_refused(tmp_path: Path, second: dict[str, Any], word: str) -> None:
    write(tmp_path, "a.json", GOOD.to_json())
    write(tmp_path, "b.json", second)
    reading = read_credentials(tmp_path)
    assert (len(reading.sets), len(reading.problems), word in reading.problems[0]) == (1, 1, True)


def test_folder_of_a_mounted_secret_is_read_without_its_hidden_parts(tmp_path: Path) -> None:
    data = tmp_path / "..2026_01_01"
    data.mkdir()
    write(data, "a.json", GOOD.to_json())
    (tmp_path / "..data").symlink_to(data)
    (tmp_path / "a.json").symlink_to(tmp_path / "..data" / "a.json")
    assert read_credentials(tmp_path).sets == (GOOD,)


def test_missing_folder_is_a_problem_and_not_a_crash(tmp_path: Path) -> None:
    assert "cannot be read" in read_credentials(tmp_path / "none").problems[0]


def test_gateway_reads_the_secret_of_the_command(tmp_path: Path) -> None:
    secret = build_credentials_secret([GOOD])
    for name, text in secret["stringData"].items():
        write(tmp_path, name, text)
    assert read_credentials(tmp_path).sets == (GOOD,)


@pytest.mark.slow
def test_command_prints_a_secret_without_the_password(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "ocelli_gateway.credentials", "add", "--password-stdin", "--api-key"]
    options = ["--user", "jürgen", "--namespace", "team-a", "--owner", "o"]
    done = subprocess.run([*command, *options], input="pass word\n", capture_output=True, text=True, check=True, timeout=60)
    secret = json.loads(done.stdout)
    [(name, text)] = secret["stringData"].items()
    assert "pass word" not in done.stdout
    write(tmp_path, name, text)
    [found] = read_credentials(tmp_path).sets
    assert (found.user, found.password_hash.matches("pass word")) == ("jürgen", True)
    api_key = done.stderr.split()[-1]
    assert found.api_key_sha256 == hash_api_key(api_key)


def test_command_refuses_a_user_that_cannot_log_in(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("password\n"))
    options = ["add", "--user", "apikey", "--namespace", "a", "--owner", "o", "--password-stdin"]
    assert credentials.main(options) == 1
    assert "apikey" in capsys.readouterr().err


ADD = ["add", "--user", "anna", "--namespace", "team-a", "--owner", "o"]


def test_command_creates_a_set_with_only_an_api_key(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert credentials.main([*ADD, "--without-password"]) == 0
    printed = capsys.readouterr()
    [(name, text)] = json.loads(printed.out)["stringData"].items()
    write(tmp_path, name, text)
    [found] = read_credentials(tmp_path).sets
    assert (found.password_hash, found.api_key_sha256) == (None, hash_api_key(printed.err.split()[-1]))


def test_command_without_a_terminal_names_the_remedy() -> None:
    command = [sys.executable, "-m", "ocelli_gateway.credentials", *ADD]
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=60, start_new_session=True
    )
    remedy = (
        "credential set of 'anna': there is no terminal to ask for the password; use --password-stdin or --without-password\n"
    )
    assert (done.returncode, done.stderr) == (1, remedy)


def test_command_writes_the_given_quotas(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("password\n"))
    assert credentials.main([*ADD, "--password-stdin", "--quota", "classifiers=20", "--quota", "storedMegabytes=0"]) == 0
    [text] = json.loads(capsys.readouterr().out)["stringData"].values()
    assert json.loads(text)["quota"] == {"classifiers": 20, "storedMegabytes": 0}


@pytest.mark.parametrize(
    ("quota", "words"), [("classifiers", "is not NAME=NUMBER"), ("images=3", "has the unknown key 'images'; use classifiers")]
)
def test_command_refuses_wrong_quotas(capsys: pytest.CaptureFixture[str], quota: str, words: str) -> None:
    assert credentials.main([*ADD, "--quota", quota]) == 1
    assert words in capsys.readouterr().err


def test_command_says_that_the_namespace_has_to_exist(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("password\n"))
    credentials.main([*ADD, "--password-stdin"])
    assert "kubectl create namespace team-a" in capsys.readouterr().err


def test_removal_names_the_entry_of_the_user(capsys: pytest.CaptureFixture[str]) -> None:
    credentials.main(["remove", "--user", GOOD.user])
    [name] = build_credentials_secret([GOOD])["stringData"]
    assert json.loads(capsys.readouterr().out) == [{"op": "remove", "path": f"/data/{name}"}]


@pytest.mark.parametrize("password", ["", "x" * 1025])
def test_unusable_password_is_refused(password: str) -> None:
    with pytest.raises(CredentialSetError, match="password"):
        build_credential_set(user="a", password=password, namespace="n", owner="o")


class CountedHash:
    """A password hash that counts how often it is computed."""

    def __init__(self, password: str, *, seconds: float = 0.0) -> None:
        self.password = password
        self.seconds = seconds
        self.count = 0

    def matches(self, password: str) -> bool:
        time.sleep(self.seconds)
        self.count += 1
        return password == self.password

    def unmatchable(self) -> CountedHash:
        return CountedHash("none", seconds=self.seconds)


def counted(user: str = "anna", password: str = "right") -> tuple[CredentialSet, CountedHash]:
    password_hash = CountedHash(password)
    return CredentialSet(user=user, password_hash=password_hash, api_key_sha256=None, namespace="n", owner="o"), password_hash  # type: ignore[arg-type]


def run(test: Callable[[Authenticator], Any], *sets: CredentialSet) -> None:
    async def body() -> None:
        keys = TokenKeys(InMemoryCluster(), ObjectKey("ocelli-system", "ocelli-token-keys"))  # type: ignore[arg-type]
        authenticator = Authenticator(Tokens(keys))
        authenticator.use(sets)
        try:
            await test(authenticator)
        finally:
            authenticator.close()

    asyncio.run(body())


KEY_ONLY = CredentialSet(user="anna", password_hash=None, api_key_sha256=hash_api_key("key-of-anna"), namespace="n", owner="o")


def test_a_set_can_have_only_an_api_key(tmp_path: Path) -> None:
    write(tmp_path, "a.json", KEY_ONLY.to_json())
    assert read_credentials(tmp_path).sets == (KEY_ONLY,)


@pytest.mark.parametrize("user", ["anna", "apikey"])
def test_an_api_key_without_a_password_is_also_the_password(user: str) -> None:
    async def body(authenticator: Authenticator) -> None:
        assert (await log_in(authenticator, user, "key-of-anna")).user == "anna"

    run(body, KEY_ONLY)


def test_api_key_of_another_user_is_not_a_password() -> None:
    bert = CredentialSet(user="bert", password_hash=None, api_key_sha256=hash_api_key("key-of-bert"), namespace="n", owner="o")

    async def body(authenticator: Authenticator) -> None:
        with pytest.raises(UnauthorizedError):
            await log_in(authenticator, "anna", "key-of-bert")

    run(body, KEY_ONLY, bert)


async def log_in(authenticator: Authenticator, user: str, password: str, address: str = "192.0.2.1") -> Caller:
    return await authenticator.authenticate({"authorization": basic(user, password)}, {}, address)


def test_verified_password_is_not_hashed_again() -> None:
    item, password_hash = counted()

    async def test(authenticator: Authenticator) -> None:
        for _ in range(5):
            await log_in(authenticator, "anna", "right")
        assert password_hash.count == 1

    run(test, item)


def test_concurrent_connections_are_hashed_once() -> None:
    item, password_hash = counted()

    async def test(authenticator: Authenticator) -> None:
        await asyncio.gather(*(log_in(authenticator, "anna", "right") for _ in range(50)))
        assert password_hash.count == 1

    run(test, item)


def test_changed_password_invalidates_the_cached_login() -> None:
    item, _ = counted()

    async def test(authenticator: Authenticator) -> None:
        await log_in(authenticator, "anna", "right")
        authenticator.use([counted(password="new")[0]])
        with pytest.raises(UnauthorizedError):
            await log_in(authenticator, "anna", "right")

    run(test, item)


def test_unknown_user_costs_a_hash_too(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(authenticator: Authenticator) -> None:
        decoy = CountedHash("none")
        monkeypatch.setattr(authenticator, "_decoy", decoy)
        with pytest.raises(UnauthorizedError):
            await log_in(authenticator, "nobody", "right")
        assert decoy.count == 1

    run(test, counted()[0])


def test_unknown_user_costs_as_much_as_the_hashes_in_use() -> None:
    cheap = replace(PasswordHash.of("x"), cost=2**4)

    async def test(authenticator: Authenticator) -> None:
        decoy = authenticator._decoy
        assert (decoy.cost, decoy.matches("x")) == (cheap.cost, False)

    run(test, replace(GOOD, password_hash=cheap))


def test_flood_of_logins_is_refused_and_not_queued() -> None:
    async def test(authenticator: Authenticator) -> None:
        attempts = (log_in(authenticator, "anna", f"wrong{index}") for index in range(auth.USER_HASHINGS_WAITING_LIMIT + 10))
        results = await asyncio.gather(*attempts, return_exceptions=True)
        assert sum(isinstance(result, TooManyRequestsError) for result in results) == 10

    run(test, counted()[0])


@pytest.mark.slow
def test_flood_for_one_user_does_not_refuse_other_users() -> None:
    async def test(authenticator: Authenticator) -> None:
        flood = [log_in(authenticator, "anna", f"wrong{index}") for index in range(auth.USER_HASHINGS_WAITING_LIMIT + 10)]
        *_, bert = await asyncio.gather(*flood, log_in(authenticator, "bert", "right"), return_exceptions=True)
        assert isinstance(bert, Caller)

    run(test, counted()[0], counted("bert")[0])


def test_flood_of_unknown_names_does_not_refuse_other_users() -> None:
    async def test(authenticator: Authenticator) -> None:
        flood = [log_in(authenticator, f"nobody{index}", "wrong") for index in range(100)]
        *_, bert = await asyncio.gather(*flood, log_in(authenticator, "bert", "right"), return_exceptions=True)
        assert isinstance(bert, Caller)

    run(test, counted("bert")[0])


@pytest.mark.slow
def test_flood_for_many_users_does_not_refuse_other_users() -> None:
    users = [f"user{index}" for index in range(20)]

    async def test(authenticator: Authenticator) -> None:
        flood = [log_in(authenticator, user, f"wrong{index}") for user in users for index in range(20)]
        *_, bert = await asyncio.gather(*flood, log_in(authenticator, "bert", "right"), return_exceptions=True)
        assert isinstance(bert, Caller)

    run(test, counted("bert")[0], *(counted(user)[0] for user in users))


def test_a_login_takes_turns_with_other_users_and_not_with_guesses_for_them() -> None:
    order: list[str] = []

    async def guess(authenticator: Authenticator, user: str, password: str) -> None:
        with contextlib.suppress(UnauthorizedError):
            await log_in(authenticator, user, password)
        order.append(user)

    async def test(authenticator: Authenticator) -> None:
        flood = [guess(authenticator, "anna", f"wrong{index}") for index in range(auth.USER_HASHINGS_WAITING_LIMIT)]
        await asyncio.gather(*flood, guess(authenticator, "bert", "right"))
        assert order.index("bert") <= 2

    run(test, counted()[0], counted("bert")[0])


@pytest.mark.slow
def test_wrong_passwords_do_not_displace_correct_ones_from_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(login_turns, "LONGEST_FAILURE_DELAY_SECONDS", 0.0)
    item, password_hash = counted()

    async def test(authenticator: Authenticator) -> None:
        await log_in(authenticator, "anna", "right")
        for index in range(auth.REMEMBERED_LIMIT + 1):
            with pytest.raises(UnauthorizedError):
                await log_in(authenticator, "anna", f"wrong{index}")
        hashed = password_hash.count
        await log_in(authenticator, "anna", "right")
        assert password_hash.count == hashed

    run(test, item)


def test_correct_api_key_is_accepted_while_others_are_guessed() -> None:
    key = replace(counted("bert")[0], api_key_sha256=hash_api_key("the key"))

    async def test(authenticator: Authenticator) -> None:
        flood = [log_in(authenticator, "apikey", f"wrong{index}") for index in range(auth.API_KEY_HASHINGS_WAITING_LIMIT + 10)]
        *_, bert = await asyncio.gather(*flood, log_in(authenticator, "apikey", "the key"), return_exceptions=True)
        assert isinstance(bert, Caller)

    run(test, counted()[0], key)


def test_set_without_a_separate_key_is_found_by_its_password() -> None:
    async def test(authenticator: Authenticator) -> None:
        assert (await log_in(authenticator, "apikey", "right")).user == "anna"
        with pytest.raises(UnauthorizedError):
            await log_in(authenticator, "apikey", "wrong")

    run(test, counted()[0])


async def outcomes(*attempts: Awaitable[Caller]) -> list[type]:
    return [type(item) for item in await asyncio.gather(*attempts, return_exceptions=True)]


def test_change_of_one_set_does_not_log_other_users_out() -> None:
    item, password_hash = counted()

    async def test(authenticator: Authenticator) -> None:
        await log_in(authenticator, "anna", "right")
        authenticator.use([item, counted("bert")[0]])
        await log_in(authenticator, "anna", "right")
        assert password_hash.count == 1

    run(test, item)


def test_wrong_api_keys_from_one_address_do_not_lock_out_others() -> None:
    async def test(authenticator: Authenticator) -> None:
        flood = [log_in(authenticator, "apikey", f"wrong{index}", "198.51.100.1") for index in range(200)]
        *_, anna = await outcomes(*flood, log_in(authenticator, "apikey", "right", "192.0.2.1"))
        assert anna is Caller

    run(test, counted()[0])


def test_guesses_from_one_address_do_not_refuse_the_password_from_another() -> None:
    async def test(authenticator: Authenticator) -> None:
        flood = [log_in(authenticator, "anna", f"wrong{index}", "198.51.100.1") for index in range(100)]
        *_, anna = await outcomes(*flood, log_in(authenticator, "anna", "right", "192.0.2.1"))
        assert anna is Caller

    run(test, counted()[0])


async def guess_on(authenticator: Authenticator, guesser: int, under_way: asyncio.Event) -> None:
    """Sets the event when some of its guesses have been answered."""
    answered = 0
    for index in itertools.count():
        try:
            await log_in(authenticator, "anna", f"wrong{guesser}-{index}")
        except UnauthorizedError:
            answered += 1
        except TooManyRequestsError:
            await asyncio.sleep(0.001)
        if answered == 3:
            under_way.set()


@pytest.mark.slow
def test_guesses_from_the_same_address_do_not_refuse_the_right_password(monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind a proxy that is not trusted, all users have the same address."""
    monkeypatch.setattr(login_turns, "FAILURE_DELAY_SECONDS", 0.5)
    monkeypatch.setattr(login_turns, "LONGEST_FAILURE_DELAY_SECONDS", 0.5)
    item, password_hash = counted()
    password_hash.seconds = 0.005

    async def test(authenticator: Authenticator) -> None:
        under_way = asyncio.Event()
        guessers = [asyncio.ensure_future(guess_on(authenticator, index, under_way)) for index in range(24)]
        async with asyncio.timeout(20):
            await under_way.wait()
            assert (await log_in(authenticator, "anna", "right")).user == "anna"
        for guesser in guessers:
            guesser.cancel()
        await asyncio.gather(*guessers, return_exceptions=True)

    run(test, item)


@pytest.mark.slow
def test_a_wrong_password_is_refused_immediately_if_too_many_answers_are_delayed(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(auth, "DELAYED_FAILURES_LIMIT", 3)
    monkeypatch.setattr(login_turns, "FAILURE_DELAY_SECONDS", 0.5)
    monkeypatch.setattr(login_turns, "LONGEST_FAILURE_DELAY_SECONDS", 0.5)

    async def test(authenticator: Authenticator) -> None:
        found = await outcomes(*(log_in(authenticator, "anna", f"wrong{index}") for index in range(FREE_FAILURES + 4)))
        assert [found.count(UnauthorizedError), found.count(auth.TooManyFailuresError)] == [FREE_FAILURES + 3, 1]

    with caplog.at_level(logging.WARNING, logger="ocelli_gateway.auth"):
        run(test, counted()[0])
    assert [record.msg for record in caplog.records].count("login failed") == FREE_FAILURES + 4


@pytest.mark.parametrize("user", ["anna", "nobody"])
def test_flood_of_unknown_names_is_answered_as_a_known_name_is(user: str) -> None:
    async def test(authenticator: Authenticator) -> None:
        flood = [log_in(authenticator, f"nobody{index}", "wrong") for index in range(50)]
        assert set(await outcomes(*flood, log_in(authenticator, user, "wrong"))) == {UnauthorizedError}

    run(test, counted()[0])


@pytest.mark.parametrize("user", ["anna", "nobody"])
def test_many_concurrent_passwords_are_refused_for_known_and_unknown_names(user: str) -> None:
    async def test(authenticator: Authenticator) -> None:
        found = await outcomes(*(log_in(authenticator, user, f"wrong{index}") for index in range(50)))
        assert found.count(TooManyRequestsError) == 50 - auth.USER_HASHINGS_WAITING_LIMIT

    run(test, counted()[0])


@pytest.mark.slow
@pytest.mark.parametrize("user", ["anna", "nobody"])
def test_passwords_of_one_name_are_checked_one_by_one_for_known_and_unknown_names(user: str) -> None:
    known, password_hash = counted()
    password_hash.seconds = 0.1

    async def test(authenticator: Authenticator) -> None:
        began = time.monotonic()
        await outcomes(*(log_in(authenticator, user, f"wrong{index}") for index in range(4)))
        assert time.monotonic() - began >= 0.4

    run(test, known)


@pytest.mark.slow
@pytest.mark.parametrize("user", ["anna", "nobody"])
def test_known_and_unknown_names_wait_equally_long_in_a_flood_of_names(user: str, monkeypatch: pytest.MonkeyPatch) -> None:
    known, password_hash = counted()
    password_hash.seconds = 0.1

    async def test(authenticator: Authenticator) -> None:
        decoy = password_hash.unmatchable()
        monkeypatch.setattr(authenticator, "_decoy", decoy)
        flood = [asyncio.ensure_future(log_in(authenticator, f"nobody{index}", "wrong")) for index in range(20)]
        # One of their turns is running, and another one waits.
        await asyncio.sleep(0.03)
        await outcomes(log_in(authenticator, user, "wrong"))
        assert decoy.count + password_hash.count == 3
        await outcomes(*flood)

    run(test, known)


@pytest.mark.slow
@pytest.mark.parametrize("user", ["anna", "nobody"])
def test_wrong_passwords_are_answered_with_growing_delays(user: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(login_turns, "FAILURE_DELAY_SECONDS", 0.1)

    async def test(authenticator: Authenticator) -> None:
        began = time.monotonic()
        for index in range(FREE_FAILURES + 2):
            assert await outcomes(log_in(authenticator, user, f"wrong{index}")) == [UnauthorizedError]
        assert time.monotonic() - began >= 0.3

    run(test, counted()[0])


def test_failed_login_is_logged_with_address_and_name_without_the_secret(caplog: pytest.LogCaptureFixture) -> None:
    async def test(authenticator: Authenticator) -> None:
        await outcomes(
            log_in(authenticator, "nobody", "secret-1", "198.51.100.1"),
            log_in(authenticator, "apikey", "secret-2", "198.51.100.2"),
            authenticator.authenticate({"authorization": "Bearer secret-3"}, {}, "198.51.100.3"),
        )

    with caplog.at_level(logging.WARNING, logger="ocelli_gateway.auth"):
        run(test, counted()[0])
    lines = [(record.kind, record.user, record.address) for record in caplog.records if record.msg == "login failed"]  # type: ignore[attr-defined]
    assert sorted(lines) == [
        ("API key", None, "198.51.100.2"),
        ("password", "nobody", "198.51.100.1"),
        ("token", None, "198.51.100.3"),
    ]
    assert "secret" not in "".join(JsonFormatter().format(record) for record in caplog.records)
