"""Creations that have not ended: a repeated `ocelli create` goes on with the classifier id of the first one."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ocelli_cli.config_file import Context, create_private, write_private
from ocelli_client import Examples

# What was uploaded is deleted long before.
_KEPT_SECONDS = 7 * 86_400.0


@dataclass(frozen=True, kw_only=True)
class UnfinishedCreation:
    """The file that remembers one creation. Its name follows from gateway, user, classifier name and images."""

    path: Path

    @classmethod
    def find(cls, environment: Mapping[str, str], context: Context, name: str, examples: Examples) -> UnfinishedCreation:
        """That of this creation, whether it exists or not."""
        home = environment.get("XDG_STATE_HOME")
        folder = (Path(home) if home else Path.home() / ".local" / "state") / "ocelli" / "creations"
        images = [[one.class_name, [[image.name, image.sha256] for image in one.images]] for one in examples.sets]
        # An API key is part of the key only as a digest: whose creation it is, not how to log in.
        user = context.user or context.api_key or context.token
        key = hashlib.sha256(json.dumps([context.url.rstrip("/"), user, name, images]).encode()).hexdigest()
        return cls(path=folder / f"{key}.json")

    def find_classifier_id(self) -> str | None:
        """The id of a creation that has not ended."""
        try:
            if time.time() - self.path.stat().st_mtime > _KEPT_SECONDS:
                return None
            found = json.loads(self.path.read_text(encoding="utf-8"))["classifier_id"]
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return found if isinstance(found, str) else None

    def remember(self, classifier_id: str) -> str:
        """Before anything is sent. Of two programs that do so at the same time, both get the id of the first one."""
        text = json.dumps({"classifier_id": classifier_id})
        if create_private(self.path, text):
            return classifier_id
        found = self.find_classifier_id()
        if found is None:
            # Too old, or not a file of this program.
            write_private(self.path, text)
        return found or classifier_id

    def forget(self) -> None:
        """It has ended."""
        self.path.unlink(missing_ok=True)
