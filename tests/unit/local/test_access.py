"""Reading manifests."""

from __future__ import annotations

from pathlib import Path

import pytest

from ocelli_local.access import load_manifests

pytestmark = pytest.mark.slow


def test_folders_files_lists_and_dicts_become_manifests(tmp_path: Path) -> None:
    (tmp_path / "b.yaml").write_text("kind: B\n---\nkind: C\n---\n")
    (tmp_path / "a.yml").write_text("kind: List\nitems: [{kind: A}]\n")
    assert [manifest["kind"] for manifest in load_manifests([tmp_path])] == ["A", "B", "C"]
    assert load_manifests({"kind": "D"}) == [{"kind": "D"}]
