"""`ocelli create`, `add` and `remove`, over the gateway: what is sent, what is not sent twice, and what is said."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path

import pytest

from ocelli_cli.config_file import Context
from ocelli_cli.unfinished import UnfinishedCreation
from ocelli_client import read_folder
from tests.gateway_harness.stage import GatewayInstance, Stage, wait_for
from tests.gateway_harness.v3_client import V3Client
from tests.unit.clients.broken_connection import BrokenConnection
from tests.unit.clients.command_line import CommandLine
from tests.unit.clients.photographs import write_images
from tests.unit.clients.trainings import after_creation


@pytest.fixture
def birds(tmp_path: Path) -> Path:
    """A folder with two classes."""
    folder = tmp_path / "birds"
    write_images(folder / "heron", range(10))
    write_images(folder / "owl", range(10, 20))
    return folder


@pytest.fixture
def broken(stage: Stage, gateway: GatewayInstance) -> Iterator[BrokenConnection]:
    """An address between user and gateway whose connections can be cut."""
    with BrokenConnection(gateway.port) as connection:
        yield connection


def count_uploads(stage: Stage, classifier_id: str) -> int:
    return sum(f"/{classifier_id}/" in path for path in stage.stored_uploads())


def list_state_files(user: CommandLine) -> list[Path]:
    return list((user.home / ".local" / "state" / "ocelli" / "creations").glob("*"))


def test_create_makes_a_classifier_of_folders(anna: CommandLine, client: V3Client, birds: Path) -> None:
    run = anna.succeed("create", "birds", str(birds), "-o", "json")
    assert run.err == ""
    classifier_id = run.document["classifier_id"]
    assert client.get(classifier_id).json()["classes"] == [{"class": "heron"}, {"class": "owl"}]
    assert client.get(classifier_id).json()["name"] == "birds"


def test_create_says_what_to_do_next(anna: CommandLine, birds: Path) -> None:
    run = anna.succeed("create", "birds", str(birds))
    assert ": training. Follow it: ocelli status birds_" in run.out


def test_negatives_are_no_class(anna: CommandLine, birds: Path, tmp_path: Path) -> None:
    negatives = write_images(tmp_path / "none", range(20, 30))
    run = anna.succeed("create", "birds", str(birds), "--negatives", str(negatives), "-o", "json")
    assert [item["class"] for item in run.document["classes"]] == ["heron", "owl"]
    assert len(run.document["negative_sources"]) == 1


def test_a_dry_run_sends_nothing(stranger: CommandLine, birds: Path) -> None:
    (birds / "owl" / "notes.jpg").write_text("not an image")
    run = stranger.succeed("create", "birds", str(birds), "--dry-run", "-o", "json")
    assert [(item["class"], item["images"]) for item in run.document["sets"]] == [("heron", 10), ("owl", 10)]
    assert run.document["sets"][1]["unusable"] == [{"name": "notes.jpg", "reason": "is not an image"}]
    assert run.err == "Warning: notes.jpg is not an image; it is left out\n"


def test_too_few_images_are_refused_before_anything_is_sent(anna: CommandLine, stage: Stage, tmp_path: Path) -> None:
    write_images(tmp_path / "heron", range(10))
    write_images(tmp_path / "owl", range(10, 13))
    run = anna.run("create", "tiny", str(tmp_path), "-o", "json")
    assert (run.code, run.out) == (1, "")
    assert 'Class "owl" has 3 images; at least 10 are needed: add 7' in run.err
    assert not any("/tiny_" in path for path in stage.stored_uploads())


def test_a_missing_folder_exits_with_1(anna: CommandLine) -> None:
    run = anna.run("create", "birds", "/nowhere")
    assert (run.code, run.out) == (1, "")
    assert "/nowhere does not exist" in run.err


def test_waiting_ends_with_the_training(anna: CommandLine, stage: Stage, client: V3Client, birds: Path) -> None:
    ended = after_creation(client, "patient", stage.finish_training)
    run = anna.succeed("create", "patient", str(birds), "--wait")
    ended.result()
    assert " is ready." in run.out


def test_waiting_ends_with_a_failed_training(anna: CommandLine, stage: Stage, client: V3Client, birds: Path) -> None:
    ended = after_creation(client, "failing", lambda classifier_id: stage.fail_training(classifier_id, "disk is full"))
    run = anna.run("create", "failing", str(birds), "--wait", "-o", "json")
    ended.result()
    assert (run.code, run.out) == (1, "")
    assert "has failed: " in run.err


def test_waiting_ends_where_the_classifier_is_deleted(anna: CommandLine, client: V3Client, birds: Path) -> None:
    ended = after_creation(client, "deleted", client.delete)
    run = anna.run("create", "deleted", str(birds), "--wait")
    ended.result()
    assert (run.code, run.out) == (3, "")
    assert "Error: " in run.err


def test_a_used_up_quota_is_refused_in_words(anna: CommandLine, stage: Stage, gateway: GatewayInstance, tmp_path: Path) -> None:
    for name in ("ant", "bee"):
        write_images(tmp_path / name, range(10 * len(name), 10 * len(name) + 10))
    carl = {"OCELLI_USER": "carl", "OCELLI_PASSWORD": "pw"}
    account = {"user": "carl", "password": "pw", "namespace": "team-c", "owner": "owner-c"}
    stage.write_credentials("carl.json", **account, quota={"classifiers": 1})
    wait_for(lambda: anna.run("list", **carl).code == 0, "the account")
    anna.succeed("create", "first", str(tmp_path), **carl)
    refused = anna.run("create", "second", str(tmp_path), "-o", "json", **carl)
    assert (refused.code, refused.out) == (1, "")
    assert "The quota of classifiers is used up: 1 of 1" in refused.err
    assert "again" not in refused.err


def test_a_lost_connection_costs_one_zip(anna: CommandLine, stage: Stage, broken: BrokenConnection, tmp_path: Path) -> None:
    names = ["ant", "bee", "cat", "dog"]
    for index, name in enumerate(names):
        write_images(tmp_path / name, range(10 * index, 10 * index + 10))
    # The third zip is cut in its middle.
    broken.cut_upload(3)
    run = anna.succeed("create", "insects", str(tmp_path), "-o", "json", OCELLI_URL=broken.address)
    assert "was lost" in run.err
    assert "trying again in 1 s" in run.err
    assert len(run.document["classes"]) == 4
    assert count_uploads(stage, run.document["classifier_id"]) == 4
    assert broken.uploads == 5


def test_a_repeated_create_sends_only_what_is_missing(
    anna: CommandLine, stage: Stage, client: V3Client, broken: BrokenConnection, birds: Path
) -> None:
    # The second zip stalls, and the user gives up.
    broken.stall_upload(2)
    stopped = anna.run("create", "terns", str(birds), "--timeout", "1", OCELLI_URL=broken.address)
    assert (stopped.code, stopped.out) == (6, "")
    assert "repeat the command" in stopped.err
    broken.work()
    run = anna.succeed("create", "terns", str(birds), "-o", "json", OCELLI_URL=broken.address)
    assert run.err.startswith("Resuming the unfinished creation of terns")
    assert broken.uploads == 3
    assert count_uploads(stage, run.document["classifier_id"]) == 2
    listed = client.http.get("/v3/classifiers").json()["classifiers"]
    assert [item["classifier_id"] for item in listed if item["name"] == "terns"] == [run.document["classifier_id"]]
    assert list_state_files(anna) == []


def test_a_lost_answer_does_not_create_twice(
    anna: CommandLine, client: V3Client, broken: BrokenConnection, birds: Path
) -> None:
    broken.cut_answer("POST /ocelli/v1/classifiers")
    run = anna.succeed("create", "stilts", str(birds), "-o", "json", OCELLI_URL=broken.address)
    listed = client.http.get("/v3/classifiers").json()["classifiers"]
    assert [item["classifier_id"] for item in listed if item["name"] == "stilts"] == [run.document["classifier_id"]]


def test_expired_credentials_lose_nothing(anna: CommandLine, birds: Path) -> None:
    run = anna.run("create", "birds", str(birds), OCELLI_PASSWORD="expired")
    assert (run.code, run.out) == (5, "")
    assert "run `ocelli login`" in run.err


def test_add_retrains_with_more_images(anna: CommandLine, client: V3Client, tmp_path: Path) -> None:
    classifier_id = client.ready("growing")
    write_images(tmp_path / "stork", range(10))
    run = anna.succeed("add", "growing", str(tmp_path), "-o", "json")
    assert run.document["status"] == "retraining"
    assert [item["class"] for item in run.document["classes"]] == ["heron", "owl", "stork"]
    assert run.document["classifier_id"] == classifier_id


def test_a_class_that_is_there_may_get_a_single_image(anna: CommandLine, client: V3Client, tmp_path: Path) -> None:
    client.ready("known")
    write_images(tmp_path / "owl", range(1))
    run = anna.succeed("add", "known", str(tmp_path), "-o", "json")
    assert [len(item["sources"]) for item in run.document["classes"]] == [1, 2]


def test_a_new_class_needs_ten_images(anna: CommandLine, client: V3Client, tmp_path: Path) -> None:
    client.ready("few")
    write_images(tmp_path / "stork", range(3))
    run = anna.run("add", "few", str(tmp_path))
    assert (run.code, run.out) == (1, "")
    assert 'Class "stork" has 3 images; at least 10 are needed: add 7' in run.err


def test_a_lost_answer_does_not_add_twice(
    anna: CommandLine, client: V3Client, broken: BrokenConnection, tmp_path: Path
) -> None:
    classifier_id = client.ready("adding")
    write_images(tmp_path / "stork", range(10))
    broken.cut_answer(f"POST /ocelli/v1/classifiers/{classifier_id}/examples")
    run = anna.succeed("add", "adding", str(tmp_path), "-o", "json", OCELLI_URL=broken.address)
    assert [len(item["sources"]) for item in run.document["classes"]] == [1, 1, 1]


def test_add_without_anything_exits_with_2(anna: CommandLine, client: V3Client) -> None:
    run = anna.run("add", client.ready())
    assert (run.code, run.out) == (2, "")
    assert "nothing to add" in run.err


def test_remove_takes_a_class_away(anna: CommandLine, client: V3Client, tmp_path: Path) -> None:
    classifier_id = client.ready("shrinking")
    write_images(tmp_path / "stork", range(10))
    anna.succeed("add", "shrinking", str(tmp_path))
    client.stage.finish_training(classifier_id)
    asked = anna.run("remove", "shrinking", "--class", "owl")
    assert (asked.code, asked.out) == (2, "")
    assert "repeat the command with --yes" in asked.err
    run = anna.succeed("remove", "shrinking", "--class", "owl", "--yes", "-o", "json")
    assert [item["class"] for item in run.document["classes"]] == ["heron", "stork"]


def test_remove_asks_about_images_that_were_moved_to_the_class(anna: CommandLine, client: V3Client, tmp_path: Path) -> None:
    classifier_id = client.ready("moved")
    write_images(tmp_path / "stork", range(10))
    anna.succeed("add", "moved", str(tmp_path))
    client.stage.finish_training(classifier_id)
    anna.succeed("relabel", "moved", "9f" * 32, "--to", "owl", "--yes")
    asked = anna.run("remove", "moved", "--class", "owl")
    assert 'Remove class "owl" with 1 image moved to it from moved and retrain?' in asked.err


def test_remove_of_the_last_upload_of_a_class_asks_about_the_class(anna: CommandLine, client: V3Client, tmp_path: Path) -> None:
    classifier_id = client.ready("emptied")
    write_images(tmp_path / "stork", range(10))
    added = anna.succeed("add", "emptied", str(tmp_path), "-o", "json")
    client.stage.finish_training(classifier_id)
    (storks,) = [item["sources"] for item in added.document["classes"] if item["class"] == "stork"]
    asked = anna.run("remove", "emptied", "--upload", storks[0]["upload"])
    assert 'Remove class "stork", upload ' in asked.err


def test_remove_leaves_two_sets(anna: CommandLine, client: V3Client) -> None:
    client.ready("small")
    run = anna.run("remove", "small", "--class", "owl", "--yes")
    assert (run.code, run.out) == (1, "")
    assert "needs at least two example sets" in run.err


def test_two_creations_of_the_same_images_at_the_same_time_get_one_id(tmp_path: Path, birds: Path) -> None:
    context = Context(url="https://vision.example.org", api_key="k")
    environment = {"XDG_STATE_HOME": str(tmp_path / "state")}
    both = [UnfinishedCreation.find(environment, context, "birds", read_folder(birds)) for _ in range(2)]
    assert [one.find_classifier_id() for one in both] == [None, None]
    assert [one.remember(f"birds_{number}") for number, one in enumerate(both)] == ["birds_0", "birds_0"]
    assert [path.name for path in both[0].path.parent.iterdir()] == [both[0].path.name]


def test_a_folder_without_hard_links_keeps_the_id(tmp_path: Path, birds: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, target: Path) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    # A stand-in for such a file system, which cannot be mounted here.
    monkeypatch.setattr(Path, "hardlink_to", refuse)
    context = Context(url="https://vision.example.org", api_key="k")
    begun = UnfinishedCreation.find({"XDG_STATE_HOME": str(tmp_path / "state")}, context, "birds", read_folder(birds))
    assert [begun.remember("birds_0"), begun.remember("birds_1")] == ["birds_0", "birds_0"]


def test_a_state_that_cannot_be_kept_ends_the_creation_before_anything_is_sent(
    anna: CommandLine, stage: Stage, birds: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    stored = len(stage.stored_uploads())
    run = anna.run("create", "birds", str(birds), XDG_STATE_HOME=str(tmp_path / "file"))
    assert (run.code, run.out) == (1, "")
    assert "cannot be written: Not a directory" in run.err
    assert len(stage.stored_uploads()) == stored


def test_names_of_all_kinds_are_read_and_never_act_on_a_terminal(stranger: CommandLine, tmp_path: Path) -> None:
    names = ["a b", "\u00e9", "\U0001f436", "right\u202eleft", "-"]
    for number, name in enumerate(names):
        write_images(tmp_path / "pets" / name.replace("-", "dash"), range(10 * number, 10 * number + 10))
    (tmp_path / "pets" / "a b" / "gone.jpg").symlink_to("nowhere.jpg")
    (tmp_path / "pets" / "a b" / "\x1b[31mred.jpg").touch()
    run = stranger.succeed("create", "../a 'quoted' name", str(tmp_path / "pets"), "--dry-run")
    assert "\x1b" not in run.out + run.err
    assert "\u202e" not in run.out
    assert "right\\u202eleft" in run.out
    assert "gone.jpg cannot be read (No such file or directory); it is left out" in run.err
    assert "\\x1b[31mred.jpg is empty; it is left out" in run.err


def test_a_class_name_that_is_not_allowed_is_refused_with_another(stranger: CommandLine, tmp_path: Path) -> None:
    write_images(tmp_path / "pets" / "\x1b[31mred", range(10))
    write_images(tmp_path / "pets" / "dog", range(10, 20))
    run = stranger.run("create", "pets", str(tmp_path / "pets"), "--dry-run", "-o", "json")
    assert run.code == 1
    assert "which is not allowed; rename it, for example to" in run.err
    assert "\x1b" not in run.out + run.err


def test_a_name_that_cannot_be_printed_is_refused(stranger: CommandLine, birds: Path) -> None:
    run = stranger.run("create", "bad\udcff", str(birds), "-o", "json")
    assert (run.code, run.out) == (2, "")
    assert "is not a name: it has characters that cannot be printed" in run.err


def test_a_folder_whose_name_is_not_text_is_refused_with_another(stranger: CommandLine, tmp_path: Path) -> None:
    write_images(tmp_path / "pets" / "dog\udcff", range(10))
    write_images(tmp_path / "pets" / "cat", range(10, 20))
    run = stranger.run("create", "pets", str(tmp_path / "pets"), "--dry-run", "-o", "json")
    assert run.code == 1
    assert [one["class"] for one in run.document["sets"]] == ["cat", "dog?"]
    assert 'rename it, for example to "dog_"' in run.err


def test_an_empty_folder_is_refused_in_words(stranger: CommandLine, tmp_path: Path) -> None:
    run = stranger.run("create", "pets", str(tmp_path))
    assert (run.code, run.out) == (1, "")
    assert "These images are not enough:" in run.err
