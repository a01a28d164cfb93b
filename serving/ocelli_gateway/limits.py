"""The limits of this release that a client checks before it sends anything."""

from __future__ import annotations

from collections.abc import Mapping

from ocelli_api.classifier import CLASSES_LIMIT, CORRECTIONS_LIMIT, DISPLAY_NAME_LIMIT, SOURCES_LIMIT
from ocelli_gateway.example_sets import LEAST_IMAGES, LEAST_UPLOAD_IMAGES
from ocelli_gateway.operations import EXAMPLES_LIMITS
from ocelli_storage.archives import IMAGE_BYTES_LIMIT, IMAGES_LIMIT, MEGABYTE

LIMITS: Mapping[str, int] = {
    "zip_megabytes": EXAMPLES_LIMITS.file_bytes // MEGABYTE,
    "zip_images": IMAGES_LIMIT,
    "image_megabytes": IMAGE_BYTES_LIMIT // MEGABYTE,
    "zip_images_at_least": LEAST_UPLOAD_IMAGES,
    "class_images_at_least": LEAST_IMAGES,
    "classes": CLASSES_LIMIT,
    "sources": SOURCES_LIMIT,
    "corrections": CORRECTIONS_LIMIT,
    "name_characters": DISPLAY_NAME_LIMIT,
}
