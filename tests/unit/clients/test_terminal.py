"""What only a real program shows: Ctrl-C, terminals, colours, a closed pipe."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import pytest

from tests.documented_commands import CHECKOUT
from tests.gateway_harness.v3_client import V3Client
from tests.unit.clients.command_line import CommandLine
from tests.unit.clients.photographs import write_images

PROGRAM = [sys.executable, "-m", "ocelli_cli"]
COLOUR = re.compile(r"\x1b\[(?:[\d;]*;)?(?:3[0-7]|9[0-7]|38;)")


def build_environment(user: CommandLine, **more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "XDG_CONFIG_HOME", "XDG_STATE_HOME")}
    return {
        **kept,
        "HOME": str(user.home),
        "TERM": "xterm",
        "PYTHONPATH": str(CHECKOUT / "clients"),
        **user.environment,
        **more,
    }


def run_on_terminal(user: CommandLine, *arguments: str, **environment: str) -> str:
    """Both outputs of a program whose standard streams are a terminal."""
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        [*PROGRAM, *arguments],
        stdin=follower,
        stdout=follower,
        stderr=follower,
        env=build_environment(user, **environment),
        close_fds=True,
    )
    os.close(follower)
    output = b""
    while True:
        try:
            piece = os.read(leader, 65536)
        except OSError:  # Linux reports the end of a terminal so.
            break
        if not piece:
            break
        output += piece
    os.close(leader)
    assert process.wait(timeout=60) == 0, output
    return output.decode()


@pytest.fixture
def birds(tmp_path: Path) -> Path:
    write_images(tmp_path / "birds" / "heron", range(10))
    write_images(tmp_path / "birds" / "owl", range(10, 20))
    return tmp_path / "birds"


def test_a_terminal_gets_colour_and_a_progress_bar(stranger: CommandLine, birds: Path) -> None:
    output = run_on_terminal(stranger, "create", "birds", str(birds), "--dry-run")
    assert "reading images" in output
    assert COLOUR.search(output)


def test_no_color_is_honoured(stranger: CommandLine, birds: Path) -> None:
    output = run_on_terminal(stranger, "create", "birds", str(birds), "--dry-run", NO_COLOR="1")
    assert COLOUR.search(output) is None
    assert "heron" in output


def test_json_on_a_terminal_does_not_act_on_it(stranger: CommandLine, tmp_path: Path) -> None:
    write_images(tmp_path / "birds" / "right\u202eleft", range(10))
    write_images(tmp_path / "birds" / "owl", range(10, 20))
    output = run_on_terminal(stranger, "create", "birds", str(tmp_path / "birds"), "--dry-run", "-o", "json")
    assert "right\\u202eleft" in output


def test_a_closed_pipe_ends_the_program_without_a_traceback(stranger: CommandLine) -> None:
    closed, standard_output = os.pipe()
    os.close(closed)
    process = subprocess.run(
        [*PROGRAM, "completion", "bash"],
        stdout=standard_output,
        stderr=subprocess.PIPE,
        env=build_environment(stranger),
        check=False,
    )
    os.close(standard_output)
    assert process.stderr == b""
    assert process.returncode == 1


def test_ctrl_c_exits_with_130_and_says_so(anna: CommandLine, client: V3Client) -> None:
    client.created("endless")
    process = subprocess.Popen(
        [*PROGRAM, "status", "endless", "-w"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=build_environment(anna),
        # Programs that a shell has started in the background ignore the signal, and so do those that they start.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "endless: training\n"
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, "Error: interrupted\n")


def test_both_programs_are_this_app() -> None:
    scripts = tomllib.loads((CHECKOUT / "clients" / "pyproject.toml").read_text())["project"]["scripts"]
    assert set(scripts) == {"ocelli", "kubectl-ocelli"}
    for target in scripts.values():
        module, _, function = target.partition(":")
        assert callable(getattr(import_module(module), function))
