"""COCO: a JSON file with images, categories and annotations. An image's class is the one category of its annotations."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ocelli_client.image_files import has_file
from ocelli_client.texts import count, shorten
from ocelli_import.listed_classes import build_listing
from ocelli_import.listing import Listing, ListingError, Place, RemoteImage, place_of


def read_coco(document_path: Path, images: Path | None = None) -> Listing:
    """The images of a COCO file. `images` is their folder; None: that of the file.

    A file that is not on this machine and has a `coco_url` is downloaded from there.

    Raises:
        ListingError: it cannot be read, or is not COCO.
    """
    document = _load(document_path)
    try:
        categories = {item["id"]: str(item["name"]) for item in document["categories"]}
        files = {item["id"]: item for item in document["images"]}
        annotations = [(item["image_id"], item["category_id"], _has_region(item)) for item in document["annotations"]]
        # Ids that are lists or objects refer to nothing.
        hash(tuple((image_id, category_id) for image_id, category_id, _ in annotations))
    except (KeyError, TypeError, AttributeError) as error:
        fact = f"has no {error}" if isinstance(error, KeyError) else f"is built differently ({error})"
        raise ListingError(
            f"{document_path} is not a COCO file: it {fact}; images, categories (id, name) and annotations are needed"
        ) from error
    folder = images or document_path.parent
    pairs: list[tuple[Place, str]] = []
    places: dict[Any, Place] = {}
    for image_id, category_id, _ in annotations:
        if image_id not in files or category_id not in categories:
            raise ListingError(
                f"{document_path}: an annotation refers to image {image_id} and category {category_id}, and the file does not"
                " have both; export it again"
            )
        if image_id not in places:
            places[image_id] = _place(document_path, files[image_id], folder)
        pairs.append((places[image_id], categories[category_id]))
    return build_listing(pairs, _notices(files, annotations))


def _load(path: Path) -> Mapping[str, Any]:
    try:
        document = json.loads(path.read_bytes())
    except OSError as error:
        raise ListingError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise ListingError(f"{path} is not JSON ({error}); export it again") from error
    if not isinstance(document, dict):
        raise ListingError(f"{path} is not a COCO file: it is not an object; images, categories and annotations are needed")
    return document


def _has_region(annotation: Mapping[str, Any]) -> bool:
    return bool(annotation.get("bbox") or annotation.get("segmentation"))


def _place(document_path: Path, image: Mapping[str, Any], folder: Path) -> Place:
    name = image.get("file_name")
    if not isinstance(name, str) or not name:
        raise ListingError(f"{document_path}: image {image['id']} has no file_name; export it again")
    place = place_of(name, folder)
    url = image.get("coco_url")
    if isinstance(place, RemoteImage) or has_file(place) or not isinstance(url, str) or not url:
        return place
    remote = place_of(url, folder)
    return RemoteImage(key=str(image["id"]), url=url, name=place.name) if isinstance(remote, RemoteImage) else place


def _notices(files: Mapping[Any, Mapping[str, Any]], annotations: list[tuple[Any, Any, bool]]) -> list[str]:
    notices = []
    regions = sum(has_region for _, _, has_region in annotations)
    if regions:
        notices.append(f"Nothing is cropped, whole images are imported: {count(regions, 'annotation')} with a region")
    annotated = {image_id for image_id, _, _ in annotations}
    bare = [str(image.get("file_name", key)) for key, image in files.items() if key not in annotated]
    if bare:
        notices.append(f"Left out: {count(len(bare), 'image')} without an annotation: {shorten(bare)}")
    return notices
