"""The images of a classify request: single files and zips, recognised by content and read one at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ocelli_api.prediction import ImageFault
from ocelli_gateway.refusals import GatewayError, InputError, LimitExceededError, TooLargeError
from ocelli_gateway.uploads import SpooledFile
from ocelli_gateway.wire import ImageOrigin
from ocelli_storage.archives import (
    CLASSIFY_KINDS,
    CLASSIFY_LIMITS,
    IMAGE_BYTES_LIMIT,
    MEGABYTE,
    SIGNATURE_BYTES,
    ArchiveError,
    ArchiveFault,
    ArchiveImage,
    EntryFault,
    ImageArchive,
    SkippedEntry,
    image_kind,
    is_zip_file,
    shown_name,
)
from ocelli_storage.image_file import INVALID_IMAGE, TOO_SMALL

IMAGES_LIMIT = 20
TOO_MANY_PIXELS = "The image has more than 100 megapixels; scale it down."
TOO_LARGE = f"The image is larger than {IMAGE_BYTES_LIMIT // MEGABYTE} MB; scale it down or compress it more."


@dataclass(frozen=True, kw_only=True)
class ReadImage:
    """One image: its bytes, or the error why it cannot be used."""

    origin: ImageOrigin
    data: bytes = b""
    error: GatewayError | None = None


def image_error(fault: ImageFault) -> GatewayError:
    """The error of an image with this fault."""
    match fault:
        case ImageFault.TOO_SMALL:
            return InputError(TOO_SMALL)
        case ImageFault.TOO_MANY_PIXELS:
            return LimitExceededError(TOO_MANY_PIXELS)
        case ImageFault.TOO_LARGE:
            return TooLargeError(TOO_LARGE)
        case ImageFault.NOT_AN_IMAGE | ImageFault.CORRUPT:
            return InputError(INVALID_IMAGE)


def has_zip(files: Sequence[SpooledFile]) -> bool:
    """Whether one of the files is a zip. It blocks."""
    return any(_is_zip(file) for file in files)


class ImageFiles:
    """The images of all files of one request. It blocks: use it in a thread, one at a time."""

    def __init__(self, files: Sequence[SpooledFile]) -> None:
        self.invalid_zips: list[ReadImage] = []
        self.count = 0
        """Images in all files, including those beyond the limit."""
        self._sources: list[tuple[str, SpooledFile | ImageArchive]] = []
        try:
            for file in files:
                if file.size_bytes:
                    self._add(file)
        except BaseException:
            self.close()
            raise

    def __iter__(self) -> Iterator[ReadImage]:
        """The first images, at most `IMAGES_LIMIT`."""
        left = min(self.count, IMAGES_LIMIT)
        for name, source in self._sources:
            images = _read_archive(name, source) if isinstance(source, ImageArchive) else iter([_read_file(name, source)])
            for image in images:
                if not left:
                    return
                left -= 1
                yield image

    @property
    def has_zip(self) -> bool:
        """Whether images come from a zip."""
        return any(isinstance(source, ImageArchive) for _, source in self._sources)

    def origins(self) -> list[ImageOrigin]:
        """The origins of these images. It reads none of them."""
        origins: list[ImageOrigin] = []
        for name, source in self._sources:
            if isinstance(source, ImageArchive):
                names = source.candidate_names(IMAGES_LIMIT - len(origins))
                origins += [_entry_origin(name, entry) for entry in names]
            else:
                origins.append(ImageOrigin(name=name))
        return origins[:IMAGES_LIMIT]

    def close(self) -> None:
        """Close the zips."""
        for _, source in self._sources:
            if isinstance(source, ImageArchive):
                source.close()

    def _add(self, file: SpooledFile) -> None:
        name = file.filename or file.part_name
        if not _is_zip(file):
            self._sources.append((name, file))
            self.count += 1
            return
        try:
            archive = ImageArchive(file.path, kinds=CLASSIFY_KINDS, limits=CLASSIFY_LIMITS)
        except ArchiveError as error:
            kind = LimitExceededError if error.fault is ArchiveFault.TOO_MANY_ENTRIES else InputError
            refusal = kind(f"{INVALID_IMAGE} {shown_name(name)}: {error}.")
            self.invalid_zips.append(ReadImage(origin=ImageOrigin(name=name), error=refusal))
            return
        self._sources.append((name, archive))
        self.count += archive.candidates


def _read_file(name: str, file: SpooledFile) -> ReadImage:
    origin = ImageOrigin(name=name)
    if file.size_bytes > IMAGE_BYTES_LIMIT:
        return ReadImage(origin=origin, error=image_error(ImageFault.TOO_LARGE))
    data = file.path.read_bytes()
    if image_kind(data[:SIGNATURE_BYTES]) is None:
        return ReadImage(origin=origin, error=image_error(ImageFault.NOT_AN_IMAGE))
    return ReadImage(origin=origin, data=data)


def _is_zip(file: SpooledFile) -> bool:
    with file.path.open("rb") as stream:
        return is_zip_file(stream)


def _entry_origin(zip_name: str, entry_name: str) -> ImageOrigin:
    return ImageOrigin(name=f"{zip_name}/{entry_name}")


def _read_archive(zip_name: str, archive: ImageArchive) -> Iterator[ReadImage]:
    try:
        for entry in archive:
            origin = _entry_origin(zip_name, entry.name)
            if isinstance(entry, ArchiveImage):
                yield ReadImage(origin=origin, data=entry.data)
            else:
                yield ReadImage(origin=origin, error=_entry_error(entry))
    except ArchiveError as error:
        yield ReadImage(
            origin=ImageOrigin(name=zip_name), error=InputError(f"{INVALID_IMAGE} {shown_name(zip_name)}: {error}.")
        )


def _entry_error(entry: SkippedEntry) -> GatewayError:
    if entry.fault is EntryFault.UNSUPPORTED_COMPRESSION:
        return InputError(f"{INVALID_IMAGE} It is compressed by {entry.method} in its zip; deflate and bzip2 are read.")
    return image_error(ImageFault.TOO_LARGE if entry.fault is EntryFault.TOO_LARGE else ImageFault.NOT_AN_IMAGE)
