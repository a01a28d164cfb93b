"""The type of a Kubernetes object: a dict as JSON has it."""

from __future__ import annotations

from typing import Any

Manifest = dict[str, Any]
