"""`ocelli logs`: the gateway cannot read logs, so kubectl does."""

from __future__ import annotations

import shutil
import subprocess
from typing import Annotated

import typer

from ocelli_cli.arguments import ClassifierArgument
from ocelli_cli.command import command
from ocelli_cli.exit_codes import UsageError
from ocelli_cli.output import OutputFormat
from ocelli_cli.session import Session
from ocelli_client import OcelliError

_CLASSIFIER_LABEL = "ocelli.dev/classifier"
_ALL_LINES = "--tail=-1"


class LogsError(OcelliError):
    """The logs cannot be read."""


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    command(app, "logs", panel="Look")(show_logs)


def show_logs(
    session: Session,
    classifier: ClassifierArgument,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Print new lines until Ctrl-C.")] = False,
) -> None:
    """Print the logs of trainer and inference servers.

    kubectl reads them, because the gateway cannot: you need rights in the namespace of the classifier.
    Logs are text: `-o json`, `yaml` and `name` are refused.
    """
    if session.output.format is not OutputFormat.HUMAN:
        raise UsageError(f"Logs are text and have no form for -o {session.output.format}; leave the option out")
    with session.connect() as ocelli:
        card = ocelli.resolve(classifier)
    namespace, _, name = (card.resource or "").partition("/")
    if not name:
        raise LogsError(f"The gateway does not say which resource {card.name} is; read the logs with kubectl")
    kubectl = shutil.which("kubectl")
    selector = f"{_CLASSIFIER_LABEL}={name}"
    arguments = ["--namespace", namespace, "logs", "--selector", selector, "--all-containers", "--prefix", _ALL_LINES]
    arguments += ["--follow"] if follow else []
    if kubectl is None:
        raise LogsError(
            "kubectl is not installed, and the gateway cannot read logs; on a machine with kubectl run: kubectl "
            + " ".join(arguments)
        )
    finished = subprocess.run([kubectl, *arguments], check=False)
    if finished.returncode != 0:
        raise LogsError(f"kubectl has failed with exit code {finished.returncode}; its message is above")
