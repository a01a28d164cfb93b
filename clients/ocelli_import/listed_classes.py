"""Images that a source lists with their classes, once or several times: an image that has several classes has no place here.

Ocelli learns one class for each image, so such images are left out, counted and reported.
"""

from __future__ import annotations

from collections.abc import Iterable

from ocelli_client.texts import count, shorten
from ocelli_import.listing import ListedImage, Listing, Place


def build_listing(pairs: Iterable[tuple[Place, str]], notices: Iterable[str] = ()) -> Listing:
    """A list of each image that has exactly one class."""
    classes: dict[Place, dict[str, None]] = {}
    for place, class_name in pairs:
        classes.setdefault(place, {})[class_name] = None
    several = {place.name: names for place, names in classes.items() if len(names) > 1}
    found = list(notices)
    if several:
        shown = [f"{name} ({', '.join(names)})" for name, names in several.items()]
        left_out = f"{count(len(several), 'image')} with several classes: {shorten(shown)}"
        found.append(f"Left out, because Ocelli learns one class for each image: {left_out}")
    images = [ListedImage(class_name=next(iter(names)), place=place) for place, names in classes.items() if len(names) == 1]
    return Listing(images=tuple(images), notices=tuple(found))
