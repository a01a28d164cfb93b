"""The files of the console: how browsers keep them, and the headers that confine the page."""

from __future__ import annotations

import gzip
import hashlib
import json
import re
from pathlib import Path

import pytest
from starlette.requests import Request
from starlette.responses import Response

from ocelli_gateway.console_files import FOLDER, ConsoleFiles

VENDORED = FOLDER / "vendor" / "noble-hashes"
FILES = ConsoleFiles()


def ask(path: str, *, files: ConsoleFiles = FILES, **headers: str) -> Response | None:
    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return files.answer(Request({"type": "http", "path": path, "headers": raw, "server": ("gateway", 80)}), path.rstrip("/"))


def found(path: str, **headers: str) -> Response:
    response = ask(path, **headers)
    assert response is not None, path
    return response


def test_page_may_load_only_from_its_own_origin_and_not_be_framed() -> None:
    policy = found("/console/").headers["content-security-policy"].split("; ")
    assert {
        "default-src 'none'",
        "script-src 'self'",
        "connect-src 'self'",
        "frame-ancestors 'none'",
        "form-action 'none'",
    } <= set(policy)
    assert "unsafe" not in " ".join(policy)


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("x-frame-options", "DENY"),
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "no-referrer"),
        ("cross-origin-opener-policy", "same-origin"),
    ],
)
def test_every_file_has_the_headers_that_confine_it(header: str, value: str) -> None:
    for path in ("/console", "/console/", f"/console/{FILES.assets}/app.js", f"/console/{FILES.assets}/console.css"):
        assert found(path).headers[header] == value, path


def test_address_without_a_slash_leads_to_the_page() -> None:
    response = found("/console")
    assert (response.status_code, response.headers["location"]) == (307, "console/")


def test_page_is_asked_for_each_time_and_its_files_are_kept() -> None:
    assert found("/console/").headers["cache-control"] == "no-cache"
    assert "immutable" in found(f"/console/{FILES.assets}/app.js").headers["cache-control"]


def test_page_that_the_browser_has_is_not_sent_again() -> None:
    tag = found("/console/").headers["etag"]
    again = found("/console/", if_none_match=f'"other", W/{tag}')
    assert (again.status_code, again.body, again.headers["etag"]) == (304, b"", tag)


def test_changed_file_has_another_address(tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("{assets}")
    (tmp_path / "app.js").write_text("1")
    before = ConsoleFiles(tmp_path).assets
    (tmp_path / "app.js").write_text("2")
    after = ConsoleFiles(tmp_path)
    assert after.assets != before
    assert ask(f"/console/{before}/app.js", files=after) is None


def test_files_are_compressed_for_browsers_that_ask_for_it() -> None:
    path = f"/console/{FILES.assets}/app.js"
    compressed, plain = found(path, accept_encoding="br, gzip;q=0.8"), found(path)
    assert compressed.headers["content-encoding"] == "gzip"
    assert gzip.decompress(bytes(compressed.body)) == plain.body == (FOLDER / "app.js").read_bytes()


@pytest.mark.parametrize("path", ["/console/../settings.py", "/console/settings.py", "/console/app.js", "/console/x/app.js"])
def test_other_addresses_have_no_file(path: str) -> None:
    assert ask(path) is None


def test_licences_are_not_served() -> None:
    assert (VENDORED / "LICENSE").exists()
    assert ask(f"/console/{FILES.assets}/vendor/noble-hashes/LICENSE") is None


def test_page_names_every_module_of_the_first_paint() -> None:
    page = bytes(found("/console/").body).decode()
    named = {name.partition("/")[2] for name in re.findall(r'modulepreload" href="([^"]+)"', page)}
    imported = {"app.js"}
    for name in sorted(named):
        folder = (FOLDER / name).parent
        addresses = re.findall(r'^(?:import|\} from) ?.*"(\..+)";', (FOLDER / name).read_text(), re.MULTILINE)
        imported |= {(folder / address).resolve().relative_to(FOLDER).as_posix() for address in addresses}
    assert named == imported
    assert "pages/classifiers.js" in named
    assert "pages/quality.js" not in named


def test_scripts_and_styles_together_are_at_most_150_kb() -> None:
    names = [path.relative_to(FOLDER).as_posix() for path in FOLDER.rglob("*") if path.suffix in (".js", ".css")]
    sizes = [len(bytes(found(f"/console/{FILES.assets}/{name}", accept_encoding="gzip").body)) for name in names]
    assert sum(sizes) <= 150_000


def test_no_module_makes_elements_of_text() -> None:
    forbidden = re.compile(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|DOMParser|srcdoc")
    own = [path for path in FOLDER.rglob("*.js") if "vendor" not in path.parts]
    assert [path.name for path in own if forbidden.search(path.read_text())] == []


def test_vendored_files_are_those_of_the_locked_package() -> None:
    lock = json.loads((VENDORED / "package.json").read_text())
    assert {path.name for path in VENDORED.iterdir()} == {*lock["files"], "package.json"}
    for name, digest in lock["files"].items():
        assert hashlib.sha256((VENDORED / name).read_bytes()).hexdigest() == digest, name
