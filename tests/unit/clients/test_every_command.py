"""What all commands have in common: the same options, errors in words on standard error, and the same exit codes."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.clients.command_line import CommandLine
from tests.unit.clients.test_help import list_commands

REVISION = "0123456789"
ARGUMENTS = {
    "add": ("dogs", "photos"),
    "approve": ("dogs", REVISION),
    "classify": ("image.jpg",),
    "completion": ("bash",),
    "create": ("dogs", "photos"),
    "delete": ("dogs",),
    "diff": ("dogs", "served", "latest"),
    "evaluate": ("photos", "-c", "dogs"),
    "export": ("dogs",),
    "history": ("dogs",),
    "import coco": ("dogs", "list.json"),
    "import csv": ("dogs", "list.csv"),
    "import custom-vision": ("dogs", "Dogs", "--endpoint", "https://NAME.invalid"),
    "import folder": ("dogs", "photos"),
    "import jsonl": ("dogs", "list.jsonl"),
    "login": ("http://127.0.0.1:9",),
    "manifest": ("photos",),
    "relabel": ("dogs", "0" * 64, "--drop"),
    "remove": ("dogs", "--class", "husky"),
    "report": ("dogs",),
    "resume": ("dogs",),
    "retrain": ("dogs",),
    "rollback": ("dogs", REVISION),
    "status": ("dogs",),
    "suspend": ("dogs",),
    "list": (),
}
# These fail before they need the gateway: there are no files, and no terminal to ask for credentials.
LOCAL = {
    "add": 1,
    "classify": 2,
    "create": 1,
    "evaluate": 1,
    "import coco": 1,
    "import csv": 1,
    "import custom-vision": 2,
    "import folder": 1,
    "import jsonl": 1,
    "login": 2,
    "manifest": 1,
}
RESULT_WITHOUT_GATEWAY = ("completion", "contexts", "doctor")
NOT_REACHABLE = 4
COMMANDS = [" ".join(words) for words in list_commands() if words and words != ("import",)]


@pytest.fixture
def lonely(stranger: CommandLine) -> Iterator[CommandLine]:
    """A user whose gateway is not running: no server listens on its port."""
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{reserved.getsockname()[1]}"
        yield CommandLine(home=stranger.home, environment={"OCELLI_URL": address, "OCELLI_TOKEN": "k"})


@pytest.mark.parametrize("name", [name for name in COMMANDS if name not in (*RESULT_WITHOUT_GATEWAY, "logs")])
def test_an_error_is_words_on_standard_error_also_with_json(
    lonely: CommandLine, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = lonely.run(*name.split(), *ARGUMENTS[name], "-o", "json", "--yes", "--no-input", "--timeout", "20")
    assert (run.code, run.out) == (LOCAL.get(name, NOT_REACHABLE), "")
    assert run.err.startswith("Error: ")
    assert "Traceback" not in run.err


@pytest.mark.parametrize("output", ["json", "yaml", "name"])
def test_logs_have_no_form(lonely: CommandLine, output: str) -> None:
    run = lonely.run("logs", "dogs", "-o", output)
    assert (run.code, run.out) == (2, "")
    assert f"no form for -o {output}; leave the option out" in run.err


def test_an_export_to_standard_output_excludes_a_document(lonely: CommandLine) -> None:
    run = lonely.run("export", "dogs", "--file", "-", "-o", "json")
    assert (run.code, run.out) == (2, "")
    assert "--file - and -o json both want standard output" in run.err
