"""`ocelli status`, `history`, `report`, `export`, `logs` and completion of names."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests.gateway_harness.stage import Stage
from tests.gateway_harness.v3_client import V3Client
from tests.unit.clients.command_line import CommandLine

FIGURES = {
    "history": [
        {
            "revision": "a" * 10,
            "trainedAt": "2026-05-04T11:50:00.000Z",
            "accuracy": "0.95",
            "accuracyInterval": {"lower": "0.87", "upper": "0.96"},
            "judgedImages": 120,
        },
        {"revision": "b" * 10, "trainedAt": "2026-05-03T11:50:00.000Z"},
    ]
}


def put_served(stage: Stage, client: V3Client, name: str) -> str:
    classifier_id = client.created(name)
    stage.finish_training(classifier_id, figures=FIGURES)
    return classifier_id


def test_status_shows_what_is_known(anna: CommandLine, client: V3Client) -> None:
    classifier_id = client.ready("shown")
    lines = dict(line.split(":", 1) for line in anna.succeed("status", "shown").out.splitlines())
    assert lines["Id"].strip() == classifier_id
    assert lines["Status"].strip() == "ready"
    assert lines["Classes"].strip() == "heron, owl"
    assert lines["Negative examples"].strip() == "no"


def test_status_in_json_is_what_the_gateway_sent(anna: CommandLine, client: V3Client) -> None:
    classifier_id = client.ready()
    sent = client.http.get(f"/ocelli/v1/classifiers/{classifier_id}").json()
    assert anna.succeed("status", classifier_id, "-o", "json").document == sent


def test_status_of_an_unknown_classifier_exits_with_3(anna: CommandLine) -> None:
    run = anna.run("status", "nothing", "-o", "json")
    assert (run.code, run.out) == (3, "")


def test_a_name_of_several_classifiers_is_refused_with_their_ids(anna: CommandLine, client: V3Client) -> None:
    ids = [client.created("twins"), client.created("twins")]
    run = anna.run("status", "twins")
    assert (run.code, run.out) == (1, "")
    assert all(classifier_id in run.err for classifier_id in ids)


def test_watching_ends_with_the_training(anna: CommandLine, client: V3Client) -> None:
    client.ready("watched")
    run = anna.succeed("status", "watched", "-w", "-o", "json")
    assert [json.loads(line)["status"] for line in run.out.splitlines()] == ["ready"]


def test_watching_a_failed_training_exits_with_1(anna: CommandLine, stage: Stage, client: V3Client) -> None:
    classifier_id = client.created("unlucky")
    stage.fail_training(classifier_id, "class owl has too few images")
    run = anna.run("status", "unlucky", "-w")
    assert run.code == 1
    assert run.out.startswith("unlucky: failed")
    assert f"Classifier unlucky ({classifier_id}) has failed: " in run.err


def test_watching_for_too_long_exits_with_6(anna: CommandLine, client: V3Client) -> None:
    client.created("slow")
    run = anna.run("status", "slow", "-w", "--timeout", "0.2")
    assert (run.code, run.out) == (6, "slow: training\n")
    assert "timed out after" in run.err


def test_history_has_the_newest_first(anna: CommandLine, stage: Stage, client: V3Client) -> None:
    put_served(stage, client, "aged")
    run = anna.succeed("history", "aged")
    assert [line.split()[0] for line in run.out.splitlines()[1:]] == ["a" * 10, "b" * 10]
    assert "95.0 % (87.0 to 96.0 %, 120 images)" in run.out
    assert anna.succeed("history", "aged", "-o", "name").out.split() == ["a" * 10, "b" * 10]


def test_a_classifier_without_history_says_so(anna: CommandLine, client: V3Client) -> None:
    client.created("fresh")
    run = anna.succeed("history", "fresh")
    assert (run.out, run.err) == ("", "Classifier fresh has no trained revision yet\n")


def test_an_export_that_does_not_exist_exits_with_3(anna: CommandLine, client: V3Client, tmp_path: Path) -> None:
    run = anna.run("export", client.created(), "--file", str(tmp_path / "model.onnx"))
    assert (run.code, run.out) == (3, "")
    assert list(tmp_path.glob("model*")) == []


def test_an_export_does_not_overwrite(anna: CommandLine, client: V3Client, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_text("mine")
    run = anna.run("export", client.ready(), "--file", str(tmp_path / "model.onnx"))
    assert (run.code, run.out) == (2, "")
    assert "--force" in run.err


def test_logs_without_kubectl_say_what_to_run(anna: CommandLine, client: V3Client) -> None:
    classifier_id = client.created("chatty")
    run = anna.run("logs", "chatty", "-f", PATH="/nothing")
    name = classifier_id.lower().replace("_", "-")
    assert (run.code, run.out) == (1, "")
    assert f"run: kubectl --namespace team-a logs --selector ocelli.dev/classifier={name}" in run.err
    assert run.err.rstrip().endswith("--follow")


def test_logs_come_from_kubectl(anna: CommandLine, client: V3Client, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    client.created("talking")
    kubectl = tmp_path / "kubectl"
    kubectl.write_text(
        f'#!{sys.executable}\nimport sys\nprint("asked:", *sys.argv[1:])\nsys.exit(3 * ("--follow" in sys.argv))\n'
    )
    kubectl.chmod(0o755)
    assert anna.run("logs", "talking", PATH=str(tmp_path)).code == 0
    assert "asked: --namespace team-a logs --selector ocelli.dev/classifier=talking-" in capfd.readouterr().out
    run = anna.run("logs", "talking", "-f", PATH=str(tmp_path))
    assert run.code == 1
    assert "exit code 3" in run.err


def complete(user: CommandLine, line: str) -> list[str]:
    words = {"_OCELLI_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(line.split(" ")) - 1)}
    return user.run(**words).out.split()


def test_names_and_ids_complete(anna: CommandLine, client: V3Client) -> None:
    classifier_id = client.created("warblers")
    assert complete(anna, "ocelli status warb") == ["warblers", classifier_id]


def test_revisions_complete(anna: CommandLine, stage: Stage, client: V3Client) -> None:
    put_served(stage, client, "grouse")
    assert complete(anna, "ocelli rollback grouse aa") == ["a" * 10]


def test_without_a_gateway_nothing_completes(stranger: CommandLine) -> None:
    assert complete(stranger, "ocelli status warb") == []


def test_the_completion_script_is_the_only_output(stranger: CommandLine) -> None:
    run = stranger.succeed("completion", "bash")
    assert "complete -o default -F" in run.out
    assert run.err == ""


def test_deleted_classifiers_are_gone(anna: CommandLine, client: V3Client) -> None:
    classifier_id = client.created("doomed")
    assert anna.run("delete", "doomed").code == 2
    assert anna.succeed("delete", "doomed", "--yes", "-o", "json").document == {"deleted": [classifier_id]}
    assert client.get(classifier_id).status_code == 404
    assert anna.run("delete", "doomed", "--yes").code == 3
