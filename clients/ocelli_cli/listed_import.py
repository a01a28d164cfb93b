"""From a list of images to a classifier: classes by the rules, downloads, checks, and then the path of `ocelli create`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ocelli_cli.creation_commands import CreationRequest, create_from_examples
from ocelli_cli.example_check import RefusedExamplesError
from ocelli_cli.output import Payload, build_table, cells
from ocelli_cli.session import Session
from ocelli_client import OcelliError
from ocelli_client.examples import LEAST_IMAGES, build_examples
from ocelli_client.image_files import FileLocation, has_file
from ocelli_client.texts import count, shorten
from ocelli_import.downloads import DownloadError, DownloadFolder, Fetch, download_all
from ocelli_import.listing import ClassRules, Listing, RemoteImage

DOWNLOADS = Path("ocelli-downloads")


class MissingImagesError(OcelliError):
    """Images of a list are not found, or not received."""


@dataclass(frozen=True, kw_only=True)
class ImportRequest:
    """What every import is asked for."""

    name: str
    rules: ClassRules = field(default_factory=ClassRules)
    dry_run: bool = False
    wait: bool = False
    suspend: bool = False
    skip_missing: bool = False
    downloads: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where remote images come from."""

    key: str
    """A name for the folder of downloads."""
    title: str
    """Identifies the source in its folder of downloads."""
    fetch: Fetch
    check: Callable[[], None] = lambda: None
    """Called after the downloads; raises OcelliError if the source has other images now."""


def import_listing(session: Session, listing: Listing, request: ImportRequest, source: Source | None = None) -> None:
    """Create a classifier from a list of images, or print what would be created.

    Raises:
        OcelliError: images are missing, or are not enough; or as of `ocelli create`.
    """
    listing = _check_files(request.rules.apply(listing), request)
    _check_counts(listing)
    if request.dry_run and listing.remote:
        for notice in listing.notices:
            session.output.warn(notice)
        session.output.print(_build_payload(request.name, listing))
        return
    if source is not None and listing.remote:
        listing, folder = _download(session, listing, request, source)
        locations = listing.examples(folder.path_of)
    else:
        locations = listing.examples(_not_remote)
    with session.output.progress("reading images") as bar:
        examples = build_examples(locations, listing.notices, lambda done, total: bar.update(done, total, "reading images"))
    create_from_examples(
        session,
        CreationRequest(
            name=request.name, examples=examples, dry_run=request.dry_run, wait=request.wait, suspend=request.suspend
        ),
    )


def _not_remote(image: RemoteImage) -> Path:
    raise DownloadError(f"{image.name} is not on this machine")


def _check_files(listing: Listing, request: ImportRequest) -> Listing:
    """Paths of lists are often relative to another folder: then none of the files exists."""
    locations = [image.place for image in listing.images if isinstance(image.place, FileLocation)]
    missing = [location for location in locations if location.entry is None and not has_file(location)]
    if not missing:
        return listing
    named = shorten([str(location.path) for location in missing])
    if not request.skip_missing:
        raise MissingImagesError(
            f"{len(missing)} of {count(len(locations), 'file')} are not found: {named}; name the folder that paths are relative"
            " to with --images, or leave these out with --skip-missing"
        )
    return listing.without(missing).with_notices([f"Left out: {count(len(missing), 'file')} not found: {named}"])


def _check_counts(listing: Listing) -> None:
    """Refuse classes with too few images before anything is downloaded."""
    found = Counter(image.class_name for image in listing.images)
    few = {name: number for name, number in found.items() if number < LEAST_IMAGES}
    if few:
        lines = [
            f"- {_title(name)} {count(number, 'image')}; at least {LEAST_IMAGES} are needed: add images, or leave it out with"
            " --skip-class"
            for name, number in few.items()
        ]
        raise RefusedExamplesError("\n".join(["These images are not enough:", *lines]))


def _title(class_name: str | None) -> str:
    return "The negative examples are" if class_name is None else f'Class "{class_name}" has'


def _download(session: Session, listing: Listing, request: ImportRequest, source: Source) -> tuple[Listing, DownloadFolder]:
    folder = DownloadFolder(request.downloads or DOWNLOADS / source.key, source.title)
    with session.output.progress("downloading") as bar:
        failures = download_all(
            listing.remote, folder, source.fetch, lambda done, total: bar.update(done, total, "downloading")
        )
    if failures:
        total = len(listing.remote)
        named = shorten([failure.reason for failure in failures])
        if not request.skip_missing:
            raise MissingImagesError(
                f"{len(failures)} of {count(total, 'image')} were not received: {named}; repeat the command to try"
                " these again, or leave them out with --skip-missing"
            )
        left_out: Sequence[str] = [f"Left out: {count(len(failures), 'image')} not received: {named}"]
        listing = listing.without([failure.image for failure in failures]).with_notices(left_out)
        _check_counts(listing)
    source.check()
    session.output.note(f"The downloads are in {folder.folder}; delete the folder when you no longer need them")
    return listing, folder


def _build_payload(name: str, listing: Listing) -> Payload:
    table = build_table("class", ">images", ">to download")
    sets = []
    class_names = sorted(dict.fromkeys(image.class_name for image in listing.images), key=lambda one: one is None)
    for class_name in class_names:
        images = [image for image in listing.images if image.class_name == class_name]
        remote = sum(not isinstance(image.place, FileLocation) for image in images)
        table.add_row(*cells("(negative examples)" if class_name is None else class_name, len(images), remote))
        sets.append({"class": class_name, "images": len(images), "to_download": remote})
    document = {"name": name, "sets": sets, "notices": list(listing.notices)}
    return Payload(document=document, names=[one for one in class_names if one is not None], human=table)
