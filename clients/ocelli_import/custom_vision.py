"""A classification project of Azure Custom Vision as a list of images. Tags are classes; the Negative tag: negative examples.

Whole images are imported. So a project that finds objects is refused; of other projects, images that have regions or several
tags are left out and counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from ocelli_client.texts import count, shorten
from ocelli_import.custom_vision_api import OBJECT_DETECTION, CustomVisionError, Project, Tag, TaggedImage, TrainingApi
from ocelli_import.downloads import Fetcher
from ocelli_import.listing import ListedImage, Listing, RemoteImage


class CountMismatchError(CustomVisionError):
    """The service counts other images than it listed."""


@dataclass(frozen=True, kw_only=True)
class ProjectImages:
    """What a project has, and what of it can be imported."""

    project: Project
    tags: tuple[Tag, ...]
    images: tuple[TaggedImage, ...]
    listing: Listing


def read_project(api: TrainingApi, name_or_id: str) -> ProjectImages:
    """List all tagged images of a project, and check their counts.

    Raises:
        CustomVisionError: there is no such project, it finds objects, or a request was refused.
        CountMismatchError: an image is missing in the list.
    """
    project = api.find_project(name_or_id)
    if project.domain_id and api.domain_type(project.domain_id) == OBJECT_DETECTION:
        raise CustomVisionError(
            f'Project "{project.name}" finds objects: its tags belong to regions of images. Ocelli classifies whole images, and'
            " regions are not cropped, so nothing was imported; choose a classification project, or crop the regions and import"
            " them as folders"
        )
    tags = api.tags(project)
    # A page may repeat an image where one was deleted meanwhile.
    images = tuple({image.image_id: image for image in api.tagged_images(project)}.values())
    read = ProjectImages(project=project, tags=tags, images=images, listing=_build_listing(api, project, tags, images))
    check_counts(api, read)
    return read


def check_counts(api: TrainingApi, read: ProjectImages) -> None:
    """Compare what was listed with what the service counts now.

    Raises:
        CountMismatchError: they differ; it has the numbers.
    """
    counted = Counter(tag_id for image in read.images for tag_id in set(image.tag_ids))
    differences = [
        f'{tag.image_count} images with the tag "{tag.name}", and {counted[tag.tag_id]} were listed'
        for tag in api.tags(read.project)
        if tag.image_count != counted[tag.tag_id]
    ]
    total = api.tagged_count(read.project)
    if total != len(read.images):
        differences.append(f"{total} tagged images, and {len(read.images)} were listed")
    if differences:
        raise CountMismatchError(
            f'Project "{read.project.name}": the service counts {"; ".join(differences)}. The project has changed, or the list'
            " is not complete: run the same command again; images that are downloaded are kept"
        )


def fetch_original(read: ProjectImages, fetcher: Fetcher, api: TrainingApi, image: RemoteImage) -> bytes:
    """The original file of an image.

    Raises:
        DownloadError: it is not received.
    """
    if urlsplit(image.url).scheme:
        return fetcher.fetch(image)
    return api.artifact(read.project, image.url)


def _build_listing(api: TrainingApi, project: Project, tags: Sequence[Tag], images: Sequence[TaggedImage]) -> Listing:
    by_id = {tag.tag_id: tag for tag in tags}
    usable = [image for image in images if len(image.tag_ids) == 1 and not image.has_regions]
    listed = [
        ListedImage(
            class_name=None if by_id[image.tag_ids[0]].negative else by_id[image.tag_ids[0]].name,
            place=RemoteImage(key=image.image_id, url=image.uri, name=image.image_id),
        )
        for image in sorted(usable, key=lambda image: _order(by_id, image))
    ]
    return Listing(images=tuple(listed), notices=tuple(_notices(api, project, by_id, images)))


def _order(by_id: Mapping[str, Tag], image: TaggedImage) -> tuple[bool, str, str]:
    """By class, negative examples last, so that classes have an order that does not depend on when images were added."""
    tag = by_id.get(image.tag_ids[0])
    if tag is None:
        raise CustomVisionError(
            f"Image {image.image_id} has a tag that is not in the project's list; run the same command again"
        )
    return tag.negative, tag.name, image.image_id


def _notices(api: TrainingApi, project: Project, by_id: Mapping[str, Tag], images: Sequence[TaggedImage]) -> list[str]:
    notices = []
    with_regions = sum(image.has_regions for image in images)
    if with_regions:
        notices.append(f"Left out: {count(with_regions, 'image')} with regions, which Ocelli does not learn from")
    several = [image for image in images if len(image.tag_ids) > 1 and not image.has_regions]
    if several:
        names = [
            f"{image.image_id} ({', '.join(by_id[tag].name for tag in image.tag_ids if tag in by_id)})" for image in several
        ]
        kind = "The project is multilabel. " if project.multilabel else ""
        left_out = f"{count(len(several), 'image')} with several tags: {shorten(names)}"
        notices.append(f"{kind}Left out, because Ocelli learns one class for each image: {left_out}")
    untagged = api.untagged_count(project)
    if untagged:
        notices.append(f"Left out: {count(untagged, 'image')} without a tag")
    empty = [tag.name for tag in by_id.values() if tag.image_count == 0]
    if empty:
        notices.append(f"Left out: {count(len(empty), 'tag')} without images: {shorten(empty)}")
    return notices
