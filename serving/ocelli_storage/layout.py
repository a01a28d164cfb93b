"""Where things lie in the object store.

    backbones/<digest>/…                                          written by the installation only, readable by all
    tenants/<namespace>/uploads/<classifier id>/<sha256>.zip      examples that came by REST
    tenants/<namespace>/trainings/<classifier id>/<revision>/<attempt>/{definition,progress,outcome}.json
    tenants/<namespace>/artifacts/<classifier id>/<revision>/…    `artifact.json` is written last: with it the artifact exists;
                                                                  `definition.json` (what was learned; erasing changes it),
                                                                  `report.json` and `report.html` lie beside it; a network
                                                                  of its own lies below `network/`
    installation/owner.json                                       which installation the store belongs to
    installation/orphans/<installation>.json                      what that installation's sweep found unused, and since when
    installation/deletions/<installation>.json                    deleted Classifiers whose bytes are still to be deleted

The classifier id, not the UID, is the key: a restored backup finds its artifacts.
"""

from __future__ import annotations

from dataclasses import dataclass

from ocelli_api.export import ArtifactSummary, ExportPart, PartPlace

TENANTS = "tenants"
BACKBONES = "backbones"
UPLOADS = "uploads"
TRAININGS = "trainings"
ARTIFACTS = "artifacts"
KINDS = (UPLOADS, TRAININGS, ARTIFACTS)
"""What is stored for a classifier, each below a folder of the tenant."""
ARTIFACT_METADATA = "artifact.json"
DEFINITION = "definition.json"
PROGRESS = "progress.json"
OUTCOME = "outcome.json"
REPORT = "report.json"
REPORT_PAGE = "report.html"
NETWORK = "network"
INSTALLATION = "installation"
OWNER = "owner.json"
ORPHANS = "orphans"
DELETIONS = "deletions"


@dataclass(frozen=True, kw_only=True)
class ClassifierLocation:
    """Everything stored for one classifier."""

    namespace: str
    classifier_id: str

    @property
    def prefixes(self) -> tuple[str, str, str]:
        """The prefixes below which all of it lies: uploads, trainings, artifacts."""
        return (self.uploads_prefix, self.trainings_prefix, self.artifacts_prefix)

    @property
    def artifacts_prefix(self) -> str:
        return self._prefix(ARTIFACTS)

    @property
    def uploads_prefix(self) -> str:
        return self._prefix(UPLOADS)

    @property
    def trainings_prefix(self) -> str:
        return self._prefix(TRAININGS)

    def upload_key(self, sha256: str) -> str:
        """Key of the uploaded zip with that digest (hex)."""
        return f"{self._prefix(UPLOADS)}/{sha256}.zip"

    def training_key(self, revision: str, attempt: int, file: str) -> str:
        """Key of a file of one attempt: `DEFINITION`, `PROGRESS` or `OUTCOME`."""
        return f"{self._prefix(TRAININGS)}/{revision}/{attempt}/{file}"

    def artifact_key(self, revision: str, file: str) -> str:
        """Key of a file of the artifact of a revision."""
        return f"{self._prefix(ARTIFACTS)}/{revision}/{file}"

    def definition_key(self, revision: str) -> str:
        """Key of the definition of a learned revision: classes, sources and recipe, without what was erased."""
        return self.artifact_key(revision, DEFINITION)

    def network_prefix(self, revision: str) -> str:
        """Where the network lies that a revision has for itself."""
        return self.artifact_key(revision, NETWORK)

    def export_part_key(self, revision: str, summary: ArtifactSummary, part: ExportPart) -> str:
        """Key of a part of an export of a revision."""
        if part.place is PartPlace.ARTIFACT:
            return self.artifact_key(revision, part.file)
        if summary.backbone_place is PartPlace.ARTIFACT:
            return f"{self.network_prefix(revision)}/{part.file}"
        return backbone_key(summary.backbone_digest, part.file)

    def _prefix(self, kind: str) -> str:
        return f"{TENANTS}/{self.namespace}/{kind}/{self.classifier_id}"


def uploads_prefix(namespace: str) -> str:
    """Below it lie the uploads of all classifiers of a tenant."""
    return f"{TENANTS}/{namespace}/{UPLOADS}"


def backbone_key(digest: str, file: str) -> str:
    """Key of a file of an installed backbone."""
    return f"{BACKBONES}/{digest}/{file}"


def owner_key() -> str:
    """Key of the document that names the installation which the store belongs to."""
    return f"{INSTALLATION}/{OWNER}"


def orphans_key(installation: str) -> str:
    """Key of the document in which an installation notes since when it has seen that nothing refers to something."""
    return f"{INSTALLATION}/{ORPHANS}/{installation}.json"


def deletions_key(installation: str) -> str:
    """Key of the document in which an installation notes the deleted Classifiers whose bytes are still to be deleted."""
    return f"{INSTALLATION}/{DELETIONS}/{installation}.json"
