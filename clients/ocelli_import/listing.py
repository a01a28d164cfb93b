"""A list of images and their classes, before any of them is read: what each source of an import gives.

Images are files, or addresses from which they are downloaded. Which classes are renamed, left out or taken as negative examples
is decided here, so that nothing is downloaded that is not needed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import unquote, urlsplit

from ocelli_client.errors import OcelliError
from ocelli_client.examples import Example, allowed_class_name, class_name_fault
from ocelli_client.folders import with_unique_names
from ocelli_client.image_files import FileLocation
from ocelli_client.texts import count, shorten


class ListingError(OcelliError):
    """A list of images cannot be used."""


@dataclass(frozen=True, kw_only=True)
class RemoteImage:
    """An image at an address."""

    key: str
    """Identifies the image in its source; it stays the same when its address changes."""
    url: str
    name: str
    """The name in zips and reports; without suffix, it gets that of the content."""


Place = FileLocation | RemoteImage


@dataclass(frozen=True, kw_only=True)
class ListedImage:
    """An image of a list."""

    class_name: str | None
    """None: a negative example."""
    place: Place


@dataclass(frozen=True, kw_only=True)
class Listing:
    """All images of a source."""

    images: tuple[ListedImage, ...]
    notices: tuple[str, ...] = ()
    """What was left out, and why."""

    @property
    def remote(self) -> tuple[RemoteImage, ...]:
        return tuple(image.place for image in self.images if isinstance(image.place, RemoteImage))

    def without(self, places: Iterable[Place]) -> Listing:
        """The same list without these images."""
        left_out = frozenset(places)
        return replace(self, images=tuple(image for image in self.images if image.place not in left_out))

    def with_notices(self, notices: Sequence[str]) -> Listing:
        return replace(self, notices=(*self.notices, *notices))

    def examples(self, find_file: Callable[[RemoteImage], Path]) -> list[Example]:
        """The examples as files; `find_file` knows where a remote image was downloaded to."""
        by_class: dict[str | None, list[FileLocation]] = {}
        for image in self.images:
            place = image.place
            if isinstance(place, RemoteImage):
                path = find_file(place)
                name = place.name if Path(place.name).suffix else place.name + path.suffix
                place = FileLocation(path=path, name=name)
            by_class.setdefault(image.class_name, []).append(place)
        return [
            Example(class_name=name, location=location)
            for name, locations in by_class.items()
            for location in with_unique_names(locations)
        ]


@dataclass(frozen=True, kw_only=True)
class ClassRules:
    """What the classes of a source become."""

    renames: Mapping[str, str] = field(default_factory=dict)
    """New names by old ones. Two classes with one new name become one class."""
    skipped: frozenset[str] = frozenset()
    negatives: frozenset[str] = frozenset()
    """Classes whose images are negative examples."""

    def apply(self, listing: Listing) -> Listing:
        """The list with its new classes. Characters that class names cannot have are replaced by underscores.

        Raises:
            ListingError: a rule names a class that is not in the list; or two classes would get the same name without a rule.
        """
        names = list(dict.fromkeys(image.class_name for image in listing.images if image.class_name is not None))
        self._check(names)
        new_names: dict[str | None, str | None] = {None: None}
        notices = list(listing.notices)
        for name in names:
            new_names[name] = None if name in self.negatives else self._new_name(name)
        self._check_collisions(new_names)
        replaced = [
            f'"{old}" is now "{new}"' for old, new in new_names.items() if new not in (old, None) and old not in self.renames
        ]
        if replaced:
            notices.append(f"Class names with characters that are not allowed: {shorten(replaced, len(replaced))}")
        images = [image for image in listing.images if image.class_name not in self.skipped]
        left_out = len(listing.images) - len(images)
        if left_out:
            notices.append(f"Left out with their classes ({shorten(sorted(self.skipped))}): {count(left_out, 'image')}")
        return Listing(
            images=tuple(replace(image, class_name=new_names[image.class_name]) for image in images), notices=tuple(notices)
        )

    def _new_name(self, name: str) -> str:
        if name in self.renames:
            return self.renames[name]
        return name if class_name_fault(name) is None else allowed_class_name(name)

    def _check(self, names: Sequence[str]) -> None:
        for name in [*self.renames, *sorted(self.skipped | self.negatives)]:
            if name not in names:
                raise ListingError(f'There is no class "{name}"; the classes are {shorten(names, 10)}')
        for new in self.renames.values():
            fault = class_name_fault(new)
            if fault is not None:
                raise ListingError(f'The new class name "{new}" {fault}')

    def _check_collisions(self, new_names: Mapping[str | None, str | None]) -> None:
        owners: dict[str, str] = {}
        for old, new in new_names.items():
            if old is None or new is None or old in self.skipped:
                continue
            other = owners.setdefault(new, old)
            if other != old and not (old in self.renames or other in self.renames):
                raise ListingError(f'The classes "{other}" and "{old}" would both be named "{new}"; rename one of them')


def list_files(examples: Iterable[Example], notices: Sequence[str] = ()) -> Listing:
    """A list of files that are on this machine."""
    images = (ListedImage(class_name=example.class_name, place=example.location) for example in examples)
    return Listing(images=tuple(images), notices=tuple(notices))


def place_of(text: str, folder: Path) -> Place:
    """What a list's text names: an `http(s)` address, or a path relative to the folder.

    Raises:
        ListingError: it is an address of another kind.
    """
    try:
        parts = urlsplit(text)
    except ValueError as error:
        # The text may have a password in it, and so may the error.
        raise ListingError("the address is not valid; correct it") from error
    if parts.scheme in ("http", "https") and parts.netloc:
        name = unquote(parts.path).rsplit("/", 1)[-1] or parts.hostname or ""
        return RemoteImage(key=text, url=text, name=name)
    if "://" in text:
        raise ListingError(f"an address of {parts.scheme}:// is not http or https; download the images, and list their files")
    path = folder / text
    relative = Path(text)
    inside = not relative.is_absolute() and ".." not in relative.parts
    return FileLocation(path=path, name=relative.as_posix() if inside else relative.name)
