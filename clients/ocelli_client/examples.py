"""Examples before they are sent: the images of each class, what of them cannot be used, and what the gateway would refuse.

Readers of folders, lists and other services build them; nothing here reads a file.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from ocelli_client.image_files import FileLocation, ImageFile, Progress, UnusableFile, inspect_files

LEAST_IMAGES = 10
CLASSES_LIMIT = 500
NAME_LIMIT = 128
FORBIDDEN_CHARACTERS = "$*-{}\\|/'\"`[]"


@dataclass(frozen=True, kw_only=True)
class Example:
    """A file and its class."""

    class_name: str | None
    """None: a negative example."""
    location: FileLocation


@dataclass(frozen=True, kw_only=True)
class ExampleSet:
    """The examples of one class, or the negative examples."""

    class_name: str | None
    """None: negative examples."""
    images: tuple[ImageFile, ...] = ()
    """Sorted by name, and each content once."""
    unusable: tuple[UnusableFile, ...] = ()
    duplicates: tuple[ImageFile, ...] = ()
    """Files with the content of another one of this set. They are not sent."""

    @property
    def title(self) -> str:
        """How messages name it."""
        return "the negative examples" if self.class_name is None else f'class "{self.class_name}"'


@dataclass(frozen=True, kw_only=True)
class Conflict:
    """One content in several sets: at most one of its classes can be right."""

    images: tuple[tuple[str | None, ImageFile], ...]
    """Pairs of class and file."""

    def __str__(self) -> str:
        places = " and ".join(
            f"{image.name} ({'negative examples' if class_name is None else class_name})" for class_name, image in self.images
        )
        return f"{places} are the same image"


@dataclass(frozen=True)
class Examples:
    """All example sets of a classifier."""

    sets: tuple[ExampleSet, ...]
    notices: tuple[str, ...] = ()
    """What the reader left out and other facts that a person should know; none of them prevents a training."""

    @property
    def classes(self) -> Mapping[str, tuple[ImageFile, ...]]:
        """The images of each class."""
        return {one.class_name: one.images for one in self.sets if one.class_name is not None}

    @property
    def negatives(self) -> tuple[ImageFile, ...]:
        return tuple(image for one in self.sets if one.class_name is None for image in one.images)

    @property
    def unusable(self) -> tuple[UnusableFile, ...]:
        return tuple(file for one in self.sets for file in one.unusable)

    @property
    def duplicates(self) -> tuple[ImageFile, ...]:
        return tuple(image for one in self.sets for image in one.duplicates)

    @cached_property
    def conflicts(self) -> tuple[Conflict, ...]:
        """Images that several sets have."""
        owners: defaultdict[str, list[tuple[str | None, ImageFile]]] = defaultdict(list)
        for one in self.sets:
            for image in one.images:
                owners[image.sha256].append((one.class_name, image))
        return tuple(Conflict(images=tuple(found)) for found in owners.values() if len(found) > 1)

    def problems(self) -> tuple[str, ...]:
        """Why the gateway would refuse these examples; each with its remedy. Empty: nothing is known that it would refuse."""
        names = [one.class_name for one in self.sets if one.class_name is not None]
        found = [f'Class "{name}" {fault}' for name in names if (fault := class_name_fault(name)) is not None]
        if not names:
            found.append("There is no class; put the images of each class into a folder of its own")
        elif len(self.sets) < 2:
            found.append(
                f'There is only class "{names[0]}"; add another class, or negative examples: images of none of the classes'
            )
        if len(names) > CLASSES_LIMIT:
            found.append(f"There are {len(names)} classes; at most {CLASSES_LIMIT} are allowed")
        return (*found, *(problem for one in self.sets if (problem := find_shortage(one)) is not None))


def find_shortage(examples: ExampleSet) -> str | None:
    """Why a set has too few images, in a sentence, or None if it has enough."""
    count = len(examples.images)
    if count >= LEAST_IMAGES:
        return None
    title = examples.title[0].upper() + examples.title[1:]
    left_out = [f"{len(examples.duplicates)} duplicate"] if examples.duplicates else []
    left_out += [f"{len(examples.unusable)} unusable"] if examples.unusable else []
    more = f" (and {' and '.join(left_out)})" if left_out else ""
    verb = "has" if examples.class_name is not None else "are"
    noun = "image" if count == 1 else "images"
    return f"{title} {verb} {count} {noun}{more}; at least {LEAST_IMAGES} are needed: add {LEAST_IMAGES - count}"


def class_name_fault(name: str) -> str | None:
    """Why a class cannot have this name, as the end of a sentence, or None if it can."""
    if not name.strip():
        return "has no name; give it one"
    if len(name) > NAME_LIMIT:
        return f"has a name of {len(name)} characters; at most {NAME_LIMIT} are allowed"
    bad = next(filter(_is_forbidden, name), None)
    if bad is None:
        return None
    return f'contains the character {bad!r}, which is not allowed; rename it, for example to "{allowed_class_name(name)}"'


def allowed_class_name(name: str) -> str:
    """The name with an underscore for each character that is not allowed, cut to the limit."""
    kept = "".join("_" if _is_forbidden(character) else character for character in name)
    return kept[:NAME_LIMIT].strip() or "_"


def _is_forbidden(character: str) -> bool:
    code = ord(character)
    # Bytes of a file name that are not UTF-8 are surrogates, which no JSON document can have.
    return character in FORBIDDEN_CHARACTERS or code < 32 or 127 <= code < 160 or 0xD800 <= code < 0xE000


def build_examples(examples: Sequence[Example], notices: Sequence[str] = (), on_progress: Progress | None = None) -> Examples:
    """Read and decode all files, and put them into sets in the order in which their classes appear; negative examples last."""
    inspected = inspect_files([example.location for example in examples], on_progress)
    files: dict[str | None, list[ImageFile | UnusableFile]] = {}
    for example, file in zip(examples, inspected, strict=True):
        files.setdefault(example.class_name, []).append(file)
    names = sorted(files, key=lambda name: name is None)
    return Examples(tuple(build_set(name, files[name]) for name in names), tuple(notices))


def build_set(class_name: str | None, files: Sequence[ImageFile | UnusableFile]) -> ExampleSet:
    """One set; of files with the same content the first by name is kept."""
    first: dict[str, ImageFile] = {}
    duplicates: list[ImageFile] = []
    images = sorted((file for file in files if isinstance(file, ImageFile)), key=lambda file: file.name)
    for image in images:
        if first.setdefault(image.sha256, image) is not image:
            duplicates.append(image)
    unusable = sorted((file for file in files if isinstance(file, UnusableFile)), key=lambda file: file.name)
    return ExampleSet(
        class_name=class_name, images=tuple(first.values()), unusable=tuple(unusable), duplicates=tuple(duplicates)
    )
