"""`ocelli login` and `contexts`: where credentials are kept, and to which gateway they are sent."""

from __future__ import annotations

import stat

import pytest
import yaml

from tests.gateway_harness.stage import NAMESPACE, OTHER_KEY, PASSWORD, USER, GatewayInstance
from tests.unit.clients.command_line import CommandLine


def test_a_log_in_lasts(stranger: CommandLine, gateway: GatewayInstance) -> None:
    run = stranger.succeed("login", gateway.address, "--user", USER, "--password-stdin", stdin=f"{PASSWORD}\n")
    assert f"as {USER} (namespace {NAMESPACE})" in run.out
    assert stranger.succeed("list", "-o", "json").document == {"classifiers": []}


def test_only_the_owner_can_read_the_credentials(stranger: CommandLine, gateway: GatewayInstance) -> None:
    stranger.succeed("login", gateway.address, "--user", USER, "--password-stdin", stdin=PASSWORD)
    path = stranger.home / ".config" / "ocelli" / "config.yaml"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_an_api_key_logs_in(stranger: CommandLine, gateway: GatewayInstance) -> None:
    run = stranger.succeed("login", gateway.address, "--api-key-stdin", "-o", "json", stdin=OTHER_KEY)
    assert run.document["namespace"] == "team-b"


def test_wrong_credentials_are_not_kept(stranger: CommandLine, gateway: GatewayInstance) -> None:
    run = stranger.run("login", gateway.address, "--user", USER, "--password-stdin", stdin="wrong")
    assert (run.code, run.out) == (5, "")
    assert not (stranger.home / ".config").exists()


def test_nobody_is_asked_without_a_terminal(stranger: CommandLine, gateway: GatewayInstance) -> None:
    run = stranger.run("login", gateway.address, "--user", USER)
    assert (run.code, run.out) == (2, "")
    assert "--password-stdin" in run.err


def test_an_address_that_is_none_exits_with_1(stranger: CommandLine) -> None:
    run = stranger.run("login", "vision.example.org", "--api-key-stdin", stdin="k")
    assert (run.code, run.out) == (1, "")
    assert "give one such as https://vision.example.org" in run.err


def test_contexts_can_be_chosen(stranger: CommandLine, gateway: GatewayInstance) -> None:
    for name, key in (("mine", PASSWORD), ("other", OTHER_KEY)):
        stranger.succeed("login", gateway.address, "--name", name, "--api-key-stdin", stdin=key)
    assert stranger.succeed("contexts", "--use", "mine", "-o", "json").document["contexts"][0]["current"] is True
    assert stranger.succeed("contexts", "-o", "name").out.split() == ["mine", "other"]
    assert stranger.run("list", "--context", "third").code == 3
    assert stranger.succeed("list", "--context", "other", "-o", "name").out == ""


def test_a_forgotten_context_leaves_no_credentials(stranger: CommandLine, gateway: GatewayInstance) -> None:
    stranger.succeed("login", gateway.address, "--name", "mine", "--api-key-stdin", stdin=PASSWORD)
    stranger.succeed("contexts", "--forget", "mine")
    assert PASSWORD not in (stranger.home / ".config" / "ocelli" / "config.yaml").read_text()
    assert stranger.run("list").code == 5


def test_stored_credentials_are_never_sent_to_another_address(stranger: CommandLine, gateway: GatewayInstance) -> None:
    stranger.succeed("login", gateway.address, "--api-key-stdin", stdin=PASSWORD)
    run = stranger.run("list", OCELLI_URL=gateway.address.replace("127.0.0.1", "localhost"))
    assert (run.code, run.out) == (5, "")
    assert "There are no credentials for http://localhost" in run.err


def test_the_environment_wins(stranger: CommandLine, gateway: GatewayInstance) -> None:
    stranger.succeed("login", gateway.address, "--api-key-stdin", stdin=PASSWORD)
    assert stranger.run("list", OCELLI_API_KEY="wrong").code == 5


def test_a_readable_file_is_reported(stranger: CommandLine, gateway: GatewayInstance) -> None:
    stranger.succeed("login", gateway.address, "--api-key-stdin", stdin=PASSWORD)
    path = stranger.home / ".config" / "ocelli" / "config.yaml"
    path.chmod(0o644)
    assert f"chmod 600 {path}" in stranger.succeed("list").err


@pytest.mark.parametrize("content", ["{", "[1]", yaml.safe_dump({"contexts": {"a": {"uri": "x"}}}), "\x00"])
def test_a_broken_file_is_named(stranger: CommandLine, content: str) -> None:
    path = stranger.home / ".config" / "ocelli" / "config.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(content)
    run = stranger.run("list")
    assert (run.code, run.out) == (1, "")
    assert str(path) in run.err
