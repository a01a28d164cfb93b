"""`ocelli doctor`: problems and their remedies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from ocelli_cli.cluster_checkup import check_cluster
from ocelli_cli.command import command
from ocelli_cli.exit_codes import ExitCode, UsageError
from ocelli_cli.findings import Finding, Level
from ocelli_cli.gateway_checkup import check_gateway
from ocelli_cli.output import Payload, build_table, cells
from ocelli_cli.session import Session

_STYLES = {Level.OK: "green", Level.WARNING: "yellow", Level.PROBLEM: "bold red"}


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    command(app, "doctor", panel="Look")(doctor)


def doctor(
    session: Session,
    kube_context: Annotated[
        str | None,
        typer.Option(
            "--kube-context",
            metavar="CONTEXT",
            help="Also check this cluster, by kubectl and with your rights; by default none.",
        ),
    ] = None,
    namespace: Annotated[
        str | None,
        typer.Option(
            "--namespace", "-n", metavar="NAMESPACE", help="Where the chart is installed; by default all are searched."
        ),
    ] = None,
) -> None:
    """Find problems and their remedies.

    Checks the connection to the gateway, the log-in, the built-in classifiers and yours, and
    with --kube-context a cluster. Exits with 1 if there is a problem.
    """
    if namespace is not None and kube_context is None:
        raise UsageError("--namespace is about a cluster; name it with --kube-context CONTEXT")
    findings = list(check_gateway(session))
    if kube_context is not None:
        findings += check_cluster(kube_context, namespace, session.timeout_seconds)
    problems = [finding for finding in findings if finding.level is Level.PROBLEM]
    session.output.print(
        Payload(
            document={"healthy": not problems, "findings": [finding.to_json() for finding in findings]},
            names=[finding.check for finding in problems],
            human=_build_table(findings),
        )
    )
    if problems:
        raise typer.Exit(ExitCode.FAILED)


def _build_table(findings: Sequence[Finding]) -> Table:
    table = build_table("check", "state", "what was found")
    for finding in findings:
        fact = finding.fact if finding.remedy is None else f"{finding.fact}\n→ {finding.remedy}"
        table.add_row(*cells(finding.check, Text(finding.level.value, _STYLES[finding.level]), fact))
    return table
