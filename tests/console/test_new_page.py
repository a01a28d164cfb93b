"""A new classifier: what is shown before anything is sent, and uploads that survive lost connections and closed tabs."""

from __future__ import annotations

import hashlib
import io
import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, Route, expect

from tests.console.line import Line
from tests.console.photographs import large_png, write_class, write_folders
from tests.console.trained import draw
from tests.console.window import Window, open_window
from tests.gateway_harness.images import build_zip
from tests.gateway_harness.stage import Stage
from tests.gateway_harness.v3_client import V3Client

CREATED = 30_000
"""Milliseconds for checking, packing, sending and creating on a busy machine."""


def choose_folder(page: Page, folder: Path) -> None:
    page.locator("input[type=file][webkitdirectory]").set_input_files(folder)


def choose_files(page: Page, *files: Path) -> None:
    page.locator("input[type=file]:not([webkitdirectory])").set_input_files(list(files))


def drop(page: Page, *paths: Path) -> None:
    """Drop files and folders of this machine, as a person does: pages cannot make such an event themselves."""
    box = page.locator(".drop").bounding_box()
    assert box is not None
    session = page.context.new_cdp_session(page)
    data = {"items": [], "files": [str(path) for path in paths], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "drop"):
        place = {"x": box["x"] + box["width"] / 2, "y": box["y"] + box["height"] / 2}
        session.send("Input.dispatchDragEvent", {"type": kind, **place, "data": data})


def create(page: Page) -> None:
    page.get_by_role("button", name="Create and train").click()


@pytest.fixture
def new(window: Window) -> Page:
    window.log_in("#/new?name=Shapes")
    return window.page


def test_dropped_folders_become_classes(new: Page, tmp_path: Path) -> None:
    folders = write_folders(tmp_path / "data", negatives=10)
    drop(new, folders / "box", folders / "cross", folders / "negatives")
    expect(new.locator(".set input:not([type])")).to_have_count(3)
    expect(new.locator(".set-count strong")).to_have_text(["12 images", "12 images", "10 images"])
    expect(new.get_by_role("heading", name="Negative examples")).to_be_visible()


def test_folder_of_folders_is_a_class_for_each(new: Page, tmp_path: Path) -> None:
    drop(new, write_folders(tmp_path / "data"))
    expect(new.get_by_text("Ready: 24 images")).to_be_visible()
    assert new.locator(".set input:not([type])").evaluate_all("(inputs) => inputs.map((input) => input.value)") == [
        "box",
        "cross",
    ]


def test_zip_is_a_class_with_its_name(new: Page, tmp_path: Path) -> None:
    archive = tmp_path / "ring.zip"
    archive.write_bytes(build_zip({f"{seed}.jpg": draw("ring", seed) for seed in range(11)}))
    drop(new, archive)
    expect(new.locator(".set-count strong")).to_have_text("11 images")
    expect(new.get_by_label("Class", exact=True)).to_have_value("ring")


def test_faults_are_shown_before_anything_is_sent(new: Page, tmp_path: Path, stage: Stage) -> None:
    folders = write_folders(tmp_path / "data")
    write_class(folders / "ring", "ring", 4)
    (folders / "box" / "notes.txt").write_text("no image")
    (folders / "box" / "again.jpg").write_bytes((folders / "box" / "003.jpg").read_bytes())
    (folders / "cross" / "also.jpg").write_bytes((folders / "box" / "005.jpg").read_bytes())
    sent: list[str] = []
    new.on("request", lambda request: sent.append(request.method) if request.method != "GET" else None)
    choose_folder(new, folders)
    expect(new.get_by_text("4 images: at least 10 are needed, so add 6.").first).to_be_visible()
    new.get_by_text("1 file cannot be used").click()
    expect(new.get_by_text("notes.txt is not an image")).to_be_visible()
    new.get_by_text("1 duplicate left out").click()
    expect(new.get_by_text("again.jpg is the same image as another")).to_be_visible()
    expect(new.get_by_text("1 image is in several sets")).to_be_visible()
    expect(new.get_by_role("button", name="Create and train")).to_be_disabled()
    assert sent == []


def test_hostile_names_and_files_do_nothing(new: Page, tmp_path: Path) -> None:
    folder = write_class(tmp_path / "box", "box", 10)
    (folder / "<img src=x onerror=alert(1)>.jpg").write_bytes(b"<svg onload=alert(1)>")
    (folder / "page.jpg").write_bytes(b"\xff\xd8\xff<html><script>alert(1)</script>")
    drop(new, folder)
    new.get_by_text("2 files cannot be used").click()
    expect(new.get_by_text("<img src=x onerror=alert(1)>.jpg is not an image")).to_be_visible()
    assert new.locator("img[src=x]").count() == 0


def test_damaged_and_bottomless_zips_are_said_in_words(new: Page, tmp_path: Path) -> None:
    (tmp_path / "cut.zip").write_bytes(build_zip({"a.jpg": draw("box", 1)})[:-30])
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb.jpg", bytes(11 << 20))
    # The directory says that it is small.
    (tmp_path / "bomb.zip").write_bytes(buffer.getvalue().replace((11 << 20).to_bytes(4, "little"), (9).to_bytes(4, "little")))
    choose_files(new, tmp_path / "cut.zip", tmp_path / "bomb.zip")
    expect(new.get_by_text("cut.zip is not a complete zip; create it again.")).to_be_visible()
    new.get_by_text("1 file cannot be used").click()
    expect(new.get_by_text("bomb.jpg has more than 10 MB")).to_be_visible()


def test_same_folder_makes_the_same_zip_as_python(new: Page, tmp_path: Path, stage: Stage, client: V3Client) -> None:
    folders = write_folders(tmp_path / "data")
    (folders / "box" / "ä b.jpg").write_bytes(draw("box", 500))
    before = set(stage.stored_uploads())
    choose_folder(new, folders)
    create(new)
    expect(new.get_by_role("heading", name="Shapes")).to_be_visible(timeout=CREATED)
    digests = {Path(path).stem for path in set(stage.stored_uploads()) - before}
    assert digests == {hashlib.sha256(stored_zip(folders / name)).hexdigest() for name in ("box", "cross")}


def stored_zip(folder: Path) -> bytes:
    """The zip that the command line makes of a folder: stored, sorted, with fixed times."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for path in sorted(folder.iterdir(), key=lambda path: path.name):
            entry = zipfile.ZipInfo(path.name, date_time=(1980, 1, 1, 0, 0, 0))
            entry.create_system, entry.external_attr = 3, 0o100644 << 16
            archive.writestr(entry, path.read_bytes())
    return buffer.getvalue()


def test_large_class_becomes_few_zips_of_equally_many_images(new: Page) -> None:
    plan = """async (images) => {
        const folder = document.querySelector("script[type=module]").src.replace("app.js", "");
        const { planZips } = await import(folder + "examples/zip-writer.js");
        return planZips(images).map((zip) => zip.map((image) => image.name));
    }"""
    images = [{"name": f"{number:02}", "bytes": 9_000_000, "sha256": ""} for number in reversed(range(25))]
    zips = new.evaluate(plan, images)
    assert [len(part) for part in zips] == [9, 8, 8]
    assert [name for part in zips for name in part] == [f"{number:02}" for number in range(25)]


def test_lost_connection_is_said_and_waited_out(
    browser: Browser, line: Line, stage: Stage, tmp_path: Path, client: V3Client
) -> None:
    folders = write_large(tmp_path / "data")
    with open_window(browser, line.address) as window:
        window.log_in("#/new?name=Large")
        page = window.page
        drop(page, folders)
        expect(page.get_by_text("Ready: ")).to_be_visible(timeout=CREATED)
        line.cut_after(100_000_000)
        create(page)
        # One look, because each new try takes the words away for a moment.
        words = re.compile(r"The service cannot be reached\. .* What is already stored is kept\.")
        expect(page.get_by_text(words)).to_be_visible(timeout=CREATED)
        expect(page.get_by_text("1 of 2 zips stored;")).to_be_visible()
        puts = count_puts(page)
        line.restore()
        page.get_by_role("button", name="Try now").click()
        expect(page.get_by_role("heading", name="Large")).to_be_visible(timeout=2 * CREATED)
    assert len(puts()) == 1
    found = [item for item in client.http.get("/v3/classifiers").json()["classifiers"] if item["name"] == "Large"]
    assert len(found) == 1
    client.delete(found[0]["classifier_id"])


def write_large(folder: Path) -> Path:
    """Two classes of 70 MB each."""
    for number, name in enumerate(("one", "two")):
        (folder / name).mkdir(parents=True)
        for seed in range(10):
            (folder / name / f"{seed}.png").write_bytes(large_png(100 * number + seed))
    return folder


def count_puts(page: Page) -> Callable[[], list[str]]:
    seen: list[str] = []
    page.on("request", lambda request: seen.append(request.url) if request.method == "PUT" else None)
    return lambda: seen


def begin_hours_ago(page: Page) -> None:
    """As if sending had taken hours, until now."""
    page.evaluate("""() => {
        const drafts = JSON.parse(localStorage.getItem("ocelli-drafts"));
        for (const draft of drafts) draft.begun -= 2 * 3_600_000;
        localStorage.setItem("ocelli-drafts", JSON.stringify(drafts));
    }""")


def test_folder_that_is_dropped_again_finds_what_is_stored(window: Window, tmp_path: Path, client: V3Client) -> None:
    folders = write_folders(tmp_path / "data")
    window.log_in("#/new?name=Again")
    page = window.page
    page.route("**/ocelli/v1/classifiers", lambda route: refuse(route) if route.request.method == "POST" else route.continue_())
    choose_folder(page, folders)
    expect(page.get_by_text("Ready: ")).to_be_visible()
    create(page)
    expect(page.get_by_text("The store is full")).to_be_visible(timeout=CREATED)
    page.unroute("**/ocelli/v1/classifiers")
    begin_hours_ago(page)
    page.reload()
    window.fill_log_in("anna", "pass:word")
    expect(page.get_by_text("Again was started 2 hours ago")).to_be_visible()
    page.get_by_role("button", name="Continue").click()
    puts = count_puts(page)
    choose_folder(page, folders)
    expect(page.get_by_text("Ready: ")).to_be_visible()
    create(page)
    expect(page.get_by_role("heading", name="Again")).to_be_visible(timeout=CREATED)
    assert puts() == []


def test_id_of_a_classifier_with_other_images_is_given_up(window: Window, tmp_path: Path, client: V3Client) -> None:
    window.log_in("#/new?name=Twice")
    page = window.page
    page.evaluate(
        """(id) => localStorage.setItem(
            "ocelli-drafts", JSON.stringify([{ user: "anna", name: "Twice", id, begun: Date.now() }]))""",
        client.created("Twice"),
    )
    choose_folder(page, write_folders(tmp_path / "data"))
    expect(page.get_by_text("Ready: ")).to_be_visible()
    create(page)
    expect(page.get_by_role("alert")).to_contain_text("is in its first training", timeout=CREATED)
    page.get_by_role("button", name="Try again").click()
    expect(page.get_by_role("heading", name="Twice")).to_be_visible(timeout=CREATED)


def refuse(route: Route) -> None:
    route.fulfill(
        status=413, json={"code": 413, "error": "The store is full; delete classifiers.", "error_id": "limit_exceeded"}
    )


def test_refusal_loses_nothing_that_was_entered(new: Page, tmp_path: Path) -> None:
    choose_folder(new, write_folders(tmp_path / "data"))
    expect(new.get_by_text("Ready: ")).to_be_visible()
    new.route("**/ocelli/v1/uploads", refuse)
    create(new)
    expect(new.get_by_role("alert")).to_contain_text("The store is full; delete classifiers.")
    expect(new.get_by_label("Name")).to_have_value("Shapes")
    expect(new.get_by_text("Ready: 24 images")).to_be_visible()
    expect(new.get_by_role("button", name="Try again")).to_be_visible()


def test_leaving_the_page_asks_first(new: Page, tmp_path: Path) -> None:
    choose_folder(new, write_folders(tmp_path / "data"))
    expect(new.get_by_text("Ready: ")).to_be_visible()
    new.get_by_role("navigation", name="Console").get_by_role("link", name="Classifiers").click()
    dialog = new.get_by_role("dialog", name="Leave this page?")
    expect(dialog).to_contain_text("not sent yet")
    dialog.get_by_role("button", name="Cancel").click()
    expect(new.get_by_text("Ready: 24 images")).to_be_visible()
    assert "#/new" in new.url


def test_closing_the_tab_warns(new: Page, tmp_path: Path) -> None:
    choose_folder(new, write_folders(tmp_path / "data"))
    expect(new.get_by_text("Ready: ")).to_be_visible()
    with new.expect_event("dialog") as asked:
        new.close(run_before_unload=True)
    assert asked.value.type == "beforeunload"
    asked.value.accept()
