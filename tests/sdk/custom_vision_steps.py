"""Reads a project with Microsoft's client, and prints what it found as JSON. Arguments: endpoint and training key."""

from __future__ import annotations

import json
import sys

from azure.cognitiveservices.vision.customvision.training import CustomVisionTrainingClient
from msrest.authentication import ApiKeyCredentials

PAGE_SIZE = 256


def main() -> None:
    endpoint, key = sys.argv[1:]
    client = CustomVisionTrainingClient(endpoint, ApiKeyCredentials(in_headers={"Training-key": key}))
    (project,) = client.get_projects()
    images = []
    while True:
        page = client.get_tagged_images(project.id, order_by="Oldest", take=PAGE_SIZE, skip=len(images))
        images += page
        if len(page) < PAGE_SIZE:
            break
    found = {
        "project": [project.id, project.name, project.settings.classification_type],
        "domain": client.get_domain(project.settings.domain_id).type,
        "tags": [[tag.name, tag.type, tag.image_count] for tag in client.get_tags(project.id)],
        "images": [[image.id, [tag.tag_name for tag in image.tags], len(image.regions or ())] for image in images],
        "address": images[0].original_image_uri,
        "tagged": client.get_tagged_image_count(project.id),
        "untagged": client.get_untagged_image_count(project.id),
    }
    print(json.dumps(found))


main()
