"""`ocelli report`, `diff` and the client's quality calls, over what real trainings stored."""

from __future__ import annotations

from pathlib import Path

import pytest

from ocelli_client import NotFoundError, Ocelli
from tests.contract.test_management_quality import Trained, create
from tests.gateway_harness.management_client import ManagementClient
from tests.gateway_harness.stage import PASSWORD, USER, GatewayInstance, Stage
from tests.unit.clients.command_line import CommandLine


@pytest.fixture(scope="module")
def trained(management: ManagementClient, stage: Stage, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A classifier with three herons among its owls."""
    return create(management, stage, tmp_path_factory.mktemp("trained") / "trainer", "judged")


@pytest.fixture(scope="module")
def revisions(trained: Trained, management: ManagementClient) -> tuple[str, str]:
    """The first revision, and one in which the wrong images are corrected."""
    first = trained.revision
    images = management.call("GET", trained.path("images"), params={"wrong": "true"})["images"]
    herons = [{"image": item["image"], "class": "heron"} for item in images if item["predicted"] == "heron"]
    management.call("POST", f"/classifiers/{trained.classifier_id}/corrections", json={"corrections": herons})
    return first, trained.train()


def test_report_counts_the_images(anna: CommandLine, trained: Trained) -> None:
    run = anna.succeed("report", "judged")
    assert [line.split() for line in run.out.splitlines()[:3]][1:] == [["heron", "12", "0", "0"], ["owl", "15", "0", "0"]]
    assert "(none of the classes)" in run.out


def test_report_in_json_is_what_the_gateway_sent(anna: CommandLine, trained: Trained) -> None:
    assert anna.succeed("report", "judged", "-o", "json").document == trained.get("data")


def test_the_whole_report_becomes_a_file(anna: CommandLine, trained: Trained, tmp_path: Path) -> None:
    run = anna.succeed("report", "judged", "--html", str(tmp_path / "report.html"))
    assert (tmp_path / "report.html").read_text().startswith("<!doctype html>")
    assert run.err == f"{tmp_path / 'report.html'} has the whole report\n"


def test_a_report_that_does_not_exist_exits_with_3(anna: CommandLine, trained: Trained) -> None:
    run = anna.run("report", "judged", "--revision", "c" * 10)
    assert (run.code, run.out) == (3, "")


def test_diff_shows_what_got_better(anna: CommandLine, trained: Trained, revisions: tuple[str, str]) -> None:
    old, new = revisions
    sent = trained.get(f"compare/{old}", new)
    run = anna.succeed("diff", "judged", old, new)
    assert f"{sent['better_count']} better, {sent['worse_count']} worse" in run.out
    assert run.out.count("better  ") == len(sent["better"])
    assert anna.succeed("diff", "judged", old, new, "-o", "json").document == sent
    assert anna.succeed("diff", "judged", old, "latest", "-o", "json").document == sent


def test_diff_with_an_unknown_revision_exits_with_3(anna: CommandLine, trained: Trained) -> None:
    run = anna.run("diff", "judged", "c" * 10, "latest")
    assert (run.code, run.out) == (3, "")


def test_the_client_reads_all_that_is_stored(trained: Trained, gateway: GatewayInstance) -> None:
    with Ocelli(gateway.address, user=USER, password=PASSWORD) as ocelli:
        identity = trained.classifier_id
        assert ocelli.evaluation(identity) == trained.get("evaluation", "served")
        assert ocelli.scores(identity) == trained.get("scores", "served")
        wrong = ocelli.images(identity, wrong=True, limit=5)
        assert wrong == trained.get("images", "served", wrong="true", limit=5)
        digests = [image["image"] for image in wrong["images"] if image["thumbnail"]]
        assert set(ocelli.thumbnails(identity, "served", digests)) == set(digests)
        with pytest.raises(NotFoundError):
            ocelli.evaluation(identity, "c" * 10)
