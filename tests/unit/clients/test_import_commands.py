"""`ocelli import`: what each source becomes, what is refused before anything is sent, and what keeps an import going."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ocelli_cli import import_commands
from ocelli_import.custom_vision_api import TrainingApi
from ocelli_import.downloads import MANIFEST_NAME
from tests.documented_commands import bash_blocks
from tests.gateway_harness.stage import wait_for
from tests.unit.clients.command_line import CommandLine, Run
from tests.unit.clients.custom_vision_stand_in import KEY, OBJECT_DETECTION, SIGNATURE, StandIn, identifier, running_stand_in
from tests.unit.clients.photographs import write_images


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    def without_pauses(endpoint: str, key: object) -> TrainingApi:
        return TrainingApi(endpoint, key, sleep=lambda seconds: None)  # type: ignore[arg-type]

    monkeypatch.setattr(import_commands, "TrainingApi", without_pauses)
    with running_stand_in() as running:
        running.add("husky", range(12))
        running.add("beagle", range(20, 31))
        running.add("Negative", range(40, 50))
        yield running


@pytest.fixture(autouse=True)
def working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def custom_vision(user: CommandLine, stand_in: StandIn, *options: str) -> Run:
    variables = {"VISION_TRAINING_ENDPOINT": stand_in.address, "VISION_TRAINING_KEY": KEY}
    return user.run("import", "custom-vision", "dogs", "Dogs", *options, **variables)


def sets(run: Run) -> dict[str | None, int]:
    return {one["class"]: one["images"] for one in run.document["sets"]}


def write_list(folder: Path) -> Path:
    """A CSV of 11 cats, 10 dogs and 10 images of nothing."""
    write_images(folder / "images", range(31))
    names = ["cat"] * 11 + ["dog"] * 10 + ["nothing"] * 10
    rows = [f"images/{number:03}.jpg,{name}" for number, name in enumerate(names)]
    path = folder / "list.csv"
    path.write_text("\n".join(["file,class", *rows]))
    return path


def test_a_dry_run_of_a_list_decodes_its_images_and_sends_nothing(stranger: CommandLine, tmp_path: Path) -> None:
    table = write_list(tmp_path)
    run = stranger.succeed("import", "csv", "pets", str(table), "--negative-class", "nothing", "--dry-run", "-o", "json")
    assert sets(run) == {"cat": 11, "dog": 10, None: 10}


def test_paths_that_do_not_exist_are_an_error_that_names_the_option(stranger: CommandLine, tmp_path: Path) -> None:
    table = write_list(tmp_path)
    run = stranger.run("import", "csv", "pets", str(table), "--images", str(tmp_path / "elsewhere"), "--dry-run")
    assert (run.code, run.out) == (1, "")
    assert "31 of 31 files are not found" in run.err
    assert "name the folder that paths are relative to with --images, or leave these out with --skip-missing" in run.err


def test_missing_files_are_left_out_on_request(stranger: CommandLine, tmp_path: Path) -> None:
    table = write_list(tmp_path)
    (tmp_path / "images" / "000.jpg").unlink()
    run = stranger.succeed("import", "csv", "pets", str(table), "--skip-missing", "--dry-run", "-o", "json")
    assert sets(run)["cat"] == 10
    assert "Left out: 1 file not found" in run.document["notices"][-1]


def test_json_lines_are_read_like_csv(stranger: CommandLine, tmp_path: Path) -> None:
    write_images(tmp_path, range(20))
    names = ["cat", "dog"] * 10
    rows = [json.dumps({"file": f"{number:03}.jpg", "label": name}) for number, name in enumerate(names)]
    (tmp_path / "list.jsonl").write_text("\n".join(rows))
    run = stranger.succeed("import", "jsonl", "pets", "list.jsonl", "--dry-run", "-o", "json")
    assert sets(run) == {"cat": 10, "dog": 10}


def test_a_folder_may_get_other_class_names(stranger: CommandLine, tmp_path: Path) -> None:
    write_images(tmp_path / "pets" / "golden-retriever", range(10))
    write_images(tmp_path / "pets" / "Katze", range(20, 30))
    write_images(tmp_path / "pets" / "trash", range(40, 42))
    options = ("--rename", "Katze=cat", "--skip-class", "trash")
    run = stranger.succeed("import", "folder", "pets", "pets", *options, "--dry-run", "-o", "json")
    assert sets(run) == {"cat": 10, "golden_retriever": 10}


def test_coco_is_imported_with_its_notices(stranger: CommandLine, tmp_path: Path) -> None:
    write_images(tmp_path, range(21))
    document = {
        "images": [{"id": number, "file_name": f"{number:03}.jpg"} for number in range(21)],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
        "annotations": [
            {"id": number, "image_id": number, "category_id": 1 + number % 2, "bbox": [1, 1, 9, 9]} for number in range(20)
        ],
    }
    (tmp_path / "coco.json").write_text(json.dumps(document))
    run = stranger.succeed("import", "coco", "pets", "coco.json", "--dry-run")
    assert "Nothing is cropped" in run.err
    assert "Left out: 1 image without an annotation: 020.jpg" in run.err


def test_a_class_with_too_few_images_is_refused_with_both_remedies(stranger: CommandLine, tmp_path: Path) -> None:
    table = write_list(tmp_path)
    table.write_text(table.read_text() + "\nimages/000.jpg,owl")
    (tmp_path / "images" / "099.jpg").write_bytes((tmp_path / "images" / "030.jpg").read_bytes())
    table.write_text(table.read_text().replace("images/000.jpg,owl", "images/099.jpg,owl"))
    run = stranger.run("import", "csv", "pets", str(table), "--dry-run")
    assert run.code == 1
    assert 'Class "owl" has 1 image; at least 10 are needed: add images, or leave it out with --skip-class' in run.err


def test_a_rename_without_a_new_name_is_a_usage_error(stranger: CommandLine, tmp_path: Path) -> None:
    run = stranger.run("import", "csv", "pets", str(write_list(tmp_path)), "--rename", "cat")
    assert run.code == 2
    assert "write --rename OLD=NEW" in run.err


def test_a_dry_run_of_custom_vision_downloads_nothing(stranger: CommandLine, stand_in: StandIn, tmp_path: Path) -> None:
    run = custom_vision(stranger, stand_in, "--dry-run", "-o", "json")
    assert (run.code, sets(run)) == (0, {"beagle": 11, "husky": 12, None: 10})
    assert stand_in.downloads == 0
    assert not (tmp_path / "ocelli-downloads").exists()


def test_the_human_form_of_a_dry_run_is_a_table(stranger: CommandLine, stand_in: StandIn) -> None:
    lines = [line.split() for line in custom_vision(stranger, stand_in, "--dry-run").out.splitlines()]
    assert lines == [
        ["CLASS", "IMAGES", "TO", "DOWNLOAD"],
        ["beagle", "11", "11"],
        ["husky", "12", "12"],
        ["(negative", "examples)", "10", "10"],
    ]


def test_an_object_detection_project_is_refused(stranger: CommandLine, stand_in: StandIn) -> None:
    stand_in.domain = OBJECT_DETECTION
    run = custom_vision(stranger, stand_in)
    assert (run.code, run.out) == (1, "")
    assert 'Project "Dogs" finds objects' in run.err


def test_images_that_are_not_received_are_an_error_and_kept_ones_are_not_asked_for_again(
    stranger: CommandLine, stand_in: StandIn
) -> None:
    stand_in.broken_images = {3, 4}
    first = custom_vision(stranger, stand_in)
    assert first.code == 1
    assert "2 of 33 images were not received" in first.err
    assert "repeat the command" in first.err
    stand_in.broken_images = set()
    stand_in.requests.clear()
    # Without a gateway the second run ends after the downloads.
    assert custom_vision(stranger, stand_in).code == 5
    assert stand_in.downloads == 2


@pytest.mark.slow
def test_an_import_that_was_killed_goes_on_with_the_missing_images(
    stranger: CommandLine, stand_in: StandIn, tmp_path: Path
) -> None:
    stand_in.images_until_silence = 15
    command = [sys.executable, "-m", "ocelli_cli", "import", "custom-vision", "dogs", "Dogs"]
    variables = {"VISION_TRAINING_ENDPOINT": stand_in.address, "VISION_TRAINING_KEY": KEY, "HOME": str(stranger.home)}
    with subprocess.Popen(command, env={**os.environ, **variables}, cwd=tmp_path) as process:
        manifest = tmp_path / "ocelli-downloads" / identifier("project") / MANIFEST_NAME
        wait_for(lambda: manifest.exists() and len(manifest.read_text().splitlines()) == 16, "15 images are kept", 30)
        process.kill()
    stand_in.images_until_silence = None
    before = stand_in.served
    assert custom_vision(stranger, stand_in).code == 5
    assert stand_in.served - before == 33 - 15


def test_neither_key_nor_signature_is_printed(stranger: CommandLine, stand_in: StandIn) -> None:
    stand_in.broken_images = {3, 4}
    run = custom_vision(stranger, stand_in)
    assert KEY not in run.out + run.err
    assert SIGNATURE not in run.out + run.err


def test_a_project_that_changes_during_the_import_is_an_error_with_the_numbers(
    stranger: CommandLine, stand_in: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = import_commands.fetch_original

    def fetch_and_add(*arguments: object) -> bytes:
        if len(stand_in.images) == 33:
            stand_in.add("husky", range(12, 13))
        return original(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(import_commands, "fetch_original", fetch_and_add)
    run = custom_vision(stranger, stand_in)
    assert run.code == 1
    assert 'the service counts 13 images with the tag "husky", and 12 were listed' in run.err


def test_without_a_key_nobody_is_asked_where_no_terminal_is(stranger: CommandLine, stand_in: StandIn) -> None:
    run = stranger.run("import", "custom-vision", "dogs", "Dogs", "--endpoint", stand_in.address)
    assert run.code == 2
    assert "set VISION_TRAINING_KEY, or give --training-key-file FILE" in run.err


def test_the_key_may_be_in_a_file(stranger: CommandLine, stand_in: StandIn, tmp_path: Path) -> None:
    (tmp_path / "key").write_text(f"{KEY}\n")
    options = ("--endpoint", stand_in.address, "--training-key-file", "key", "--dry-run", "-o", "name")
    run = stranger.succeed("import", "custom-vision", "dogs", "Dogs", *options)
    assert run.out.split() == ["beagle", "husky"]


def test_without_an_endpoint_the_option_is_named(stranger: CommandLine) -> None:
    run = stranger.run("import", "custom-vision", "dogs", "Dogs")
    assert run.code == 2
    assert "give --endpoint URL, or set VISION_TRAINING_ENDPOINT" in run.err


def test_the_commands_of_the_page_import_a_project(anna: CommandLine, stand_in: StandIn) -> None:
    stand_in.name = "My dogs"
    (block,) = bash_blocks("docs/import.md", "Azure Custom Vision")
    variables = {"VISION_TRAINING_ENDPOINT": stand_in.address, "VISION_TRAINING_KEY": KEY}
    exports, commands = block.splitlines()[:2], block.splitlines()[2:]
    assert [line.split("=")[0] for line in exports] == [f"export {name}" for name in variables]
    runs = [anna.succeed(*shlex.split(line)[1:], **variables) for line in commands]
    assert "beagle" in runs[0].out
    assert stand_in.downloads == 33


def test_an_import_creates_the_classifier(anna: CommandLine, stand_in: StandIn) -> None:
    run = custom_vision(anna, stand_in, "-o", "json")
    assert run.code == 0, run
    assert [one["class"] for one in run.document["classes"]] == ["beagle", "husky"]
    assert run.document["negative_sources"]
