"""`ocelli list`, and what all commands share: formats, exit codes, streams."""

from __future__ import annotations

import socket

import yaml

from ocelli_cli.output import printable
from tests.gateway_harness.v3_client import V3Client
from tests.unit.clients.command_line import CommandLine


def test_list_names_the_classifiers(anna: CommandLine, client: V3Client) -> None:
    classifier_id = client.ready("songbirds")
    run = anna.succeed("list")
    assert run.err == ""
    assert [line.split()[:3] for line in run.out.splitlines() if "songbirds" in line] == [["songbirds", classifier_id, "ready"]]


def test_json_is_the_only_thing_on_standard_output(anna: CommandLine, client: V3Client) -> None:
    classifier_id = client.ready()
    cards = anna.succeed("list", "-o", "json").document["classifiers"]
    assert classifier_id in [card["classifier_id"] for card in cards]


def test_yaml_has_the_same_content(anna: CommandLine, client: V3Client) -> None:
    client.ready()
    in_yaml = yaml.safe_load(anna.succeed("list", "-o", "yaml").out)
    assert in_yaml == anna.succeed("list", "-o", "json").document


def test_name_prints_the_ids(anna: CommandLine, client: V3Client) -> None:
    classifier_id = client.ready()
    assert classifier_id in anna.succeed("list", "-o", "name").out.splitlines()


def test_a_name_is_no_markup(anna: CommandLine, client: V3Client) -> None:
    client.created("evil [red]")
    assert "evil [red]" in anna.succeed("list").out


def test_text_cannot_act_on_the_terminal() -> None:
    assert printable("\x1b[2J\u202eevil\n") == "\\x1b[2J\\u202eevil\n"


def test_without_a_log_in_the_message_names_the_remedy(stranger: CommandLine) -> None:
    run = stranger.run("list")
    assert (run.code, run.out) == (5, "")
    assert "ocelli login URL" in run.err


def test_wrong_credentials_exit_with_5(anna: CommandLine) -> None:
    run = anna.run("list", OCELLI_PASSWORD="wrong")
    assert (run.code, run.out) == (5, "")
    assert "does not accept the credentials" in run.err


def test_a_gateway_that_is_not_reachable_exits_with_4(anna: CommandLine) -> None:
    run = anna.run("list", "-o", "json", OCELLI_URL="http://127.0.0.1:1")
    assert (run.code, run.out) == (4, "")
    assert "http://127.0.0.1:1 is not reachable" in run.err


def test_a_gateway_that_hangs_exits_with_6(anna: CommandLine) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        run = anna.run("list", "--timeout", "0.2", OCELLI_URL=f"http://127.0.0.1:{silent.getsockname()[1]}")
    assert (run.code, run.out) == (6, "")
    assert "did not answer for 0.2 s" in run.err


def test_an_unknown_option_exits_with_2(anna: CommandLine) -> None:
    run = anna.run("list", "--colour")
    assert (run.code, run.out) == (2, "")
    assert "--colour" in run.err
