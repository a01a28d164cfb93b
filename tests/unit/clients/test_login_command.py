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


# An address of this machine that is not one of loopback by its name.
EVERY_INTERFACE = "0.0.0.0"
CLEAR_TEXT = "Warning: http://0.0.0.0:{port} is not encrypted: the credentials are sent in clear text; use an https address"


def expose(gateway: GatewayInstance) -> str:
    return gateway.address.replace("127.0.0.1", EVERY_INTERFACE)


def clear_text_warning(gateway: GatewayInstance) -> str:
    return CLEAR_TEXT.format(port=gateway.address.rpartition(":")[2])


def test_a_log_in_in_clear_text_is_warned_of_before_it_asks(stranger: CommandLine, gateway: GatewayInstance) -> None:
    run = stranger.run("login", expose(gateway), "--user", USER)
    assert run.code == 2
    assert run.err.splitlines()[0] == clear_text_warning(gateway)


def test_credentials_in_clear_text_are_warned_of_wherever_the_address_is_from(
    stranger: CommandLine, gateway: GatewayInstance
) -> None:
    login = stranger.succeed("login", expose(gateway), "--api-key-stdin", "-o", "json", stdin=PASSWORD)
    kept = stranger.succeed("list", "-o", "json")
    variable = stranger.succeed("list", "-o", "json", OCELLI_URL=expose(gateway), OCELLI_API_KEY=PASSWORD)
    for run in (login, kept, variable):
        assert run.err.count(clear_text_warning(gateway)) == 1, run
        assert run.document


def test_loopback_needs_no_warning(stranger: CommandLine, gateway: GatewayInstance) -> None:
    assert stranger.succeed("login", gateway.address, "--api-key-stdin", stdin=PASSWORD).err == ""
    assert "clear text" not in stranger.succeed("list").err


def test_completion_prints_no_warning(stranger: CommandLine, gateway: GatewayInstance) -> None:
    words = {"COMP_WORDS": "ocelli status x", "COMP_CWORD": "2", "_OCELLI_COMPLETE": "complete_bash"}
    run = stranger.run(OCELLI_URL=expose(gateway), OCELLI_API_KEY=PASSWORD, **words)
    assert (run.code, run.err) == (0, "")


SECRET_ADDRESSES = (
    "https://anna:pa55@vision.example.org",
    "https://anna:pa55/word@vision.example.org",
    "https://anna:pa55?word@vision.example.org",
    "anna:pa55@vision.example.org",
    "https://pa55@vision.example.org",
    "https://vision.example.org?key=pa55",
    "https://vision.example.org/#pa55",
)


@pytest.mark.parametrize("url", SECRET_ADDRESSES)
def test_a_secret_in_an_address_is_refused_and_never_shown(stranger: CommandLine, url: str) -> None:
    key = {"OCELLI_API_KEY": "k"}
    runs = [
        stranger.run("list", OCELLI_URL=url),
        stranger.run("list", "-o", "json", OCELLI_URL=url, **key),
        stranger.run("login", url, **key),
        stranger.run("import", "custom-vision", "dogs", "Dogs", "--endpoint", url, VISION_TRAINING_KEY="k"),
    ]
    for run in runs:
        assert (run.code, run.out) == (1, ""), run
        assert "give the address without" in run.err
        assert "pa55" not in run.err
    doctor = stranger.run("doctor", OCELLI_URL=url, **key)
    assert doctor.code == 1
    assert "OCELLI_URL: The address has" in doctor.out
    assert "pa55" not in doctor.out + doctor.err


def test_a_secret_in_an_address_of_the_file_is_refused_and_never_shown(stranger: CommandLine) -> None:
    path = stranger.home / ".config" / "ocelli" / "config.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(yaml.safe_dump({"contexts": {"mine": {"url": SECRET_ADDRESSES[0]}}}))
    for words in (("contexts",), ("list",), ("list", "--context", "mine")):
        run = stranger.run(*words)
        assert (run.code, run.out) == (1, "")
        assert f"{path} is not a configuration of ocelli (context mine: The address has credentials in it" in run.err
        assert "pa55" not in run.err


def test_a_proxy_that_cannot_be_used_is_said_without_its_password(stranger: CommandLine) -> None:
    proxy = {"ALL_PROXY": "foo://anna:pa55@proxy", "OCELLI_URL": "https://vision.invalid", "OCELLI_API_KEY": "k"}
    run = stranger.run("list", **proxy)
    assert (run.code, run.out) == (1, "")
    assert "The proxy that HTTP_PROXY, HTTPS_PROXY or ALL_PROXY names cannot be used; correct the variable" in run.err
    assert "pa55" not in run.err


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
