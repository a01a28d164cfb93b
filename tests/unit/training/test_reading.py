"""Reading all sources of a definition: decoded once, in an order that does not depend on chance."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ocelli_api.classifier import Source
from ocelli_api.network_addresses import NetworkRules
from ocelli_api.prediction import ImageFault
from ocelli_model.image_decoder import ImageDecoder, PendingImage
from ocelli_model.preprocessing import Preprocessing, decode_image
from ocelli_storage.layout import ClassifierLocation
from ocelli_storage.store_url import open_store
from ocelli_training.dataset import SUBJECTS_SHOWN, ExampleSet, SourceReading
from ocelli_training.pixel_file import PixelFile
from ocelli_training.reading import ImageReader, SourcesError
from ocelli_training.source_reader import SourceAccess, SourceReader
from ocelli_training.sources import SourceLimits

PREPROCESSING = Preprocessing(height=16, width=16)


class Sources:
    """Example sets as files of a folder, read with threads of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "sources"
        self.folder.mkdir()
        self.scratch = folder
        self.sets: list[ExampleSet] = []
        self.opened = 0
        self.known: dict[str, tuple[int, int]] = {}
        self.limits = SourceLimits(retry_delays_seconds=())
        self.progress: list[float] = []
        self.pixels: dict[str, NDArray[np.uint8]] = {}

    def add(self, class_name: str, *zips: bytes | str) -> None:
        """Add a class with a source for each zip; a text is an address."""
        sources = []
        for number, data in enumerate(zips):
            if isinstance(data, bytes):
                name = f"{class_name}-{number}.zip"
                (self.folder / name).write_bytes(data)
                data = f"file:///{name}"
            sources.append(Source(url=data))
        self.sets.append(ExampleSet(class_name=class_name, sources=tuple(sources)))

    def read(self, threads: int = 2) -> Sequence[Sequence[SourceReading]]:
        return asyncio.run(self._read(threads))

    def _open(self, data: bytes) -> PendingImage:
        self.opened += 1
        return ImageDecoder(PREPROCESSING).open(data)

    async def _read(self, threads: int) -> Sequence[Sequence[SourceReading]]:
        access = SourceAccess(
            store=open_store((self.scratch / "store").as_uri()),
            location=ClassifierLocation(namespace="team-a", classifier_id="dogs_1"),
            file_sources_folder=self.folder,
            networks=NetworkRules.parse(allowed="127.0.0.0/8", denied=""),
        )
        sources = SourceReader(access, self.scratch, self.limits)
        with PixelFile(self.scratch / "pixels", height=16, width=16) as pixels:
            reader = ImageReader(
                sources=sources,
                open_image=self._open,
                pixels=pixels,
                decoding_threads=threads,
                known_sides=self.known.get,
            )
            async with sources:
                readings, faults = await reader.read_usable(self.sets, self.progress.append, faults_limit=SUBJECTS_SHOWN)
                if faults:
                    raise SourcesError.about("team-a/dogs", faults)
            digests = {file.digest for item in readings for reading in item for file in reading.files if file.digest}
            decoded = digests - self.known.keys()
            self.pixels = {digest: pixels.read([reader.pixel_numbers()[digest]])[0] for digest in decoded}
            reader.close()
        return readings


@pytest.fixture
def sources(tmp_path: Path) -> Sources:
    return Sources(tmp_path)


def test_every_image_is_read_with_its_pixels(sources: Sources, make_zip: Any, make_image: Any) -> None:
    image = make_image(7)
    sources.add("a", make_zip({"7.png": image}))
    digest = sources.read()[0][0].files[0].digest
    assert digest is not None
    np.testing.assert_array_equal(sources.pixels[digest], decode_image(image, PREPROCESSING))


def test_images_of_the_same_bytes_are_decoded_once(sources: Sources, make_example_zip: Any) -> None:
    sources.add("a", make_example_zip(12), make_example_zip(12))
    sources.add("b", make_example_zip(12))
    sources.read()
    assert sources.opened == 12


def test_the_sides_of_an_image_are_read(sources: Sources, make_zip: Any, make_image: Any) -> None:
    sources.add("a", make_zip({"7.png": make_image(7, size=(31, 17))}))
    assert sources.read()[0][0].files[0].sides == (17, 31)


def test_a_known_image_is_not_opened(sources: Sources, make_zip: Any, make_image: Any) -> None:
    image = make_image(7)
    digest = hashlib.sha256(image).hexdigest()
    sources.known[digest] = (17, 31)
    sources.add("a", make_zip({"7.png": image, "8.png": make_image(8)}))
    file = sources.read()[0][0].files[0]
    assert (file.digest, file.sides, sources.opened) == (digest, (17, 31), 1)


def test_files_are_in_the_order_of_the_zip(sources: Sources, make_zip: Any, make_image: Any) -> None:
    files = {f"{seed}.png": make_image(seed, size=(600, 600) if seed == 0 else (12, 12)) for seed in range(6)}
    sources.add("a", make_zip(files))
    assert [file.name for file in sources.read(threads=3)[0][0].files] == list(files)


def test_a_damaged_image_among_good_ones_is_skipped(sources: Sources, make_example_zip: Any, make_image: Any) -> None:
    sources.add("a", make_example_zip(3, others={"broken.png": make_image(9)[:60]}))
    faults = {file.name: file.fault for file in sources.read()[0][0].files if file.fault is not None}
    assert faults == {"broken.png": ImageFault.CORRUPT}


def test_an_image_that_is_too_small_is_skipped(sources: Sources, make_example_zip: Any, make_image: Any) -> None:
    sources.add("a", make_example_zip(3, others={"tiny.png": make_image(9, size=(9, 40))}))
    assert [file.fault for file in sources.read()[0][0].files if file.fault] == [ImageFault.TOO_SMALL]


def test_all_unusable_sources_are_named_in_the_order_of_the_definition(sources: Sources, make_example_zip: Any) -> None:
    sources.add("husky", "file:///missing.zip", b"no zip")
    sources.add("beagle", make_example_zip(3), "file:///gone.zip")
    with pytest.raises(SourcesError) as caught:
        sources.read()
    text = str(caught.value)
    assert text.startswith(
        'Classifier team-a/dogs: class "husky": file:///missing.zip: there is no such file; paths are relative to /'
    )
    assert 'class "husky": file:///husky-1.zip: the file is not a zip' in text
    assert 'class "beagle": file:///gone.zip' in text


def test_a_permanent_error_decides_over_a_transient_one(sources: Sources) -> None:
    sources.add("husky", "http://no-such-host.invalid/a.zip", "file:///missing.zip")
    with pytest.raises(SourcesError) as caught:
        sources.read()
    assert not caught.value.first.transient
    assert "file:///missing.zip" in str(caught.value.first)


def test_after_a_few_unusable_sources_no_others_are_fetched(sources: Sources, web_server: Any) -> None:
    sources.limits = SourceLimits(retry_delays_seconds=(), concurrent_fetches=1)
    sources.add("husky", *(f"{web_server.url}/{number}.zip" for number in range(30)))
    with pytest.raises(SourcesError):
        sources.read()
    assert len(web_server.requests) < 10


def test_progress_rises_to_one(sources: Sources, make_example_zip: Any) -> None:
    sources.add("a", make_example_zip(5))
    sources.add("b", make_example_zip(5, first_seed=50))
    sources.read()
    assert sources.progress[-1] == pytest.approx(1)
    assert all(0 < part <= 1 for part in sources.progress)


def test_an_unexpected_error_of_the_decoder_is_raised(
    sources: Sources, make_example_zip: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: bytes) -> PendingImage:
        raise MemoryError

    sources.add("a", make_example_zip(3))
    monkeypatch.setattr(sources, "_open", fail)
    with pytest.raises(MemoryError):
        sources.read()


def test_pixels_of_another_size_are_refused(tmp_path: Path) -> None:
    with PixelFile(tmp_path / "pixels", height=4, width=4) as pixels, pytest.raises(ValueError, match="does not fit"):
        pixels.append(np.zeros((5, 4, 3), dtype=np.uint8))


def test_pixels_are_read_in_the_order_asked_for(tmp_path: Path) -> None:
    images = np.arange(3 * 4 * 4 * 3, dtype=np.uint8).reshape(3, 4, 4, 3)
    with PixelFile(tmp_path / "pixels", height=4, width=4) as pixels:
        numbers = [pixels.append(image) for image in images]
        np.testing.assert_array_equal(pixels.read([numbers[2], numbers[0]]), images[[2, 0]])
