import hashlib
import threading
from collections.abc import Iterator, Sequence
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from ocelli_model.backbone import BackboneUnavailableError
from ocelli_model.backbones.published_weights import find_weights, hub_folder

DATA = b"weights"
DIGEST = hashlib.sha256(DATA).hexdigest()
PUBLISHED = ["net_author-00000000.pth", "net-11111111.pth", "net-22222222.pth"]


def find(
    where: str | None, *, sha256: str | None = None, name: str = "net", published: Sequence[str] = ()
) -> tuple[str, bytes]:
    with find_weights(name, where, sha256=sha256, published_names=lambda: published) as file:
        return file.weights.origin, file.path.read_bytes()


def refusal(where: str | None, *, sha256: str | None = None, published: Sequence[str] = ()) -> str:
    with pytest.raises(BackboneUnavailableError) as caught:
        find(where, sha256=sha256, published=published)
    return str(caught.value)


class _QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def web(tmp_path: Path) -> Iterator[str]:
    """A web server of the files in `tmp_path`; its URL."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_QuietHandler, directory=str(tmp_path)))
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("form", ["{folder}/net.pth", "{folder}", "file://{folder}/net.pth", "file://{folder}"])
def test_weights_come_from_a_file_or_folder(tmp_path: Path, form: str) -> None:
    (tmp_path / "net.pth").write_bytes(DATA)

    assert find(form.format(folder=tmp_path)) == ("net.pth", DATA)


def test_weights_come_from_the_hub_cache_by_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    hub_folder().mkdir(parents=True)
    (hub_folder() / "net-22222222.pth").write_bytes(DATA)

    assert find(None) == ("net-22222222.pth", DATA)


def test_the_hub_cache_is_in_the_folder_of_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch.hub

    for name, value in (("TORCH_HOME", None), ("TORCH_HOME", "~/elsewhere"), ("XDG_CACHE_HOME", "/caches")):
        monkeypatch.delenv("TORCH_HOME", raising=False)
        if value is not None:
            monkeypatch.setenv(name, value)
        assert str(hub_folder()) == f"{torch.hub.get_dir()}/checkpoints"


def test_the_default_of_several_published_files_is_used(tmp_path: Path) -> None:
    for name in PUBLISHED[1:]:
        (tmp_path / name).write_bytes(name.encode())

    assert find(str(tmp_path), published=PUBLISHED) == ("net-11111111.pth", b"net-11111111.pth")


def test_a_published_file_of_another_name_is_found(tmp_path: Path) -> None:
    (tmp_path / PUBLISHED[0]).write_bytes(DATA)

    assert find(str(tmp_path), published=PUBLISHED) == (PUBLISHED[0], DATA)


def test_a_model_with_the_same_prefix_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "net_bn-11111111.pth").write_bytes(DATA)
    (tmp_path / "net-large.pth").write_bytes(DATA)

    assert "no published weights of it in" in refusal(str(tmp_path), published=PUBLISHED)


def test_several_unpublished_files_are_named(tmp_path: Path) -> None:
    for name in ("net-aaaaaaaa.pth", "net-bbbbbbbb.pth"):
        (tmp_path / name).write_bytes(DATA)

    assert "only net-aaaaaaaa.pth, net-bbbbbbbb.pth" in refusal(str(tmp_path), published=PUBLISHED)


def test_weights_come_from_a_url(tmp_path: Path, web: str) -> None:
    (tmp_path / "net.pth").write_bytes(DATA)

    assert find(f"{web}/net.pth") == ("http://127.0.0.1/net.pth", DATA)


def test_a_url_that_answers_not_found_is_an_error(web: str) -> None:
    assert "404" in refusal(f"{web}/net.pth")


def test_a_host_that_does_not_answer_is_an_error() -> None:
    assert "could not be fetched from http://127.0.0.1/net.pth" in refusal("http://127.0.0.1:1/net.pth")


def test_credentials_of_a_url_are_not_repeated() -> None:
    message = refusal("http://user:secret@127.0.0.1:1/net.pth?token=secret")

    assert "secret" not in message


def test_a_fetched_file_must_have_the_digest_of_its_name(tmp_path: Path, web: str) -> None:
    (tmp_path / "net-11111111.pth").write_bytes(DATA)
    (tmp_path / f"net-{DIGEST[:8]}.pth").write_bytes(DATA)

    assert find(f"{web}/net-{DIGEST[:8]}.pth")[1] == DATA
    assert f"have SHA-256 {DIGEST}, not the 11111111… of their name" in refusal(f"{web}/net-11111111.pth")


@pytest.mark.parametrize("scheme", ["path", "url"])
def test_a_pinned_digest_is_verified(tmp_path: Path, web: str, scheme: str) -> None:
    (tmp_path / "net.pth").write_bytes(DATA)
    where = str(tmp_path / "net.pth") if scheme == "path" else f"{web}/net.pth"

    assert find(where, sha256=DIGEST)[1] == DATA
    assert "pinned is 0000" in refusal(where, sha256="00" * 32)


def test_other_schemes_are_refused() -> None:
    assert "cannot read s3 URLs" in refusal("s3://bucket/net.pth")
