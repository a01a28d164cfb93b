"""The layout of the object store.

    backbones/<digest>/…                                          written by the installation only, readable by all
    tenants/<namespace>/uploads/<classifier id>/<sha256>.zip      examples uploaded by REST
    tenants/<namespace>/trainings/<classifier id>/<revision>/<attempt>/{definition,progress,outcome}.json
    tenants/<namespace>/artifacts/<classifier id>/<revision>/…    `artifact.json` is written last: it completes the artifact;
                                                                  `definition.json` (what was learned; erasure changes it),
                                                                  `report.json` and `report.html` are next to it; its own
                                                                  network, if it has one, is below `network/`; the curves of
                                                                  its fine-tuning are below `tensorboard/`; the scores of
                                                                  its images are below `judged/`, those of each customer's
                                                                  images in a file of their own, so that erasing is complete
    installation/owner.json                                       the installation that the store belongs to
    installation/orphans/<installation>.json                      orphans that its sweep has found, and since when
    installation/deletions/<installation>.json                    deleted Classifiers whose objects are pending deletion

Keys use the classifier id, not the UID, so that a restored backup finds its artifacts.
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
"""The kinds of objects of a classifier. Each has a folder in the tenant's folder."""
ARTIFACT_METADATA = "artifact.json"
DEFINITION = "definition.json"
PROGRESS = "progress.json"
OUTCOME = "outcome.json"
REPORT = "report.json"
REPORT_PAGE = "report.html"
NETWORK = "network"
JUDGED = "judged"
CURVES = "tensorboard"
INSTALLATION = "installation"
OWNER = "owner.json"
ORPHANS = "orphans"
DELETIONS = "deletions"
_CUSTOMER = "customer-"


@dataclass(frozen=True, kw_only=True)
class ClassifierLocation:
    """The keys of everything that is stored for one classifier."""

    namespace: str
    classifier_id: str

    @property
    def prefixes(self) -> tuple[str, str, str]:
        """The prefixes of all its objects: uploads, trainings, artifacts."""
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
        """Key of the definition of a learned revision: classes, sources and recipe, without erased sources."""
        return self.artifact_key(revision, DEFINITION)

    def network_prefix(self, revision: str) -> str:
        """Prefix of a revision's own network."""
        return self.artifact_key(revision, NETWORK)

    def curves_prefix(self, revision: str) -> str:
        """Prefix of the curves of a revision's fine-tuning."""
        return self.artifact_key(revision, CURVES)

    def judged_prefix(self, revision: str) -> str:
        """Prefix of the judged scores of a revision."""
        return self.artifact_key(revision, JUDGED)

    def judged_key(self, revision: str, customer: str | None) -> str:
        """Key of the judged scores of the images of one customer (by key), or of all images without a customer."""
        file = "images" if customer is None else f"{_CUSTOMER}{customer}"
        return f"{self.judged_prefix(revision)}/{file}.safetensors"

    def export_part_key(self, revision: str, summary: ArtifactSummary, part: ExportPart) -> str:
        """Key of a part of an export of a revision."""
        if part.place is PartPlace.ARTIFACT:
            return self.artifact_key(revision, part.file)
        if summary.backbone_place is PartPlace.ARTIFACT:
            return f"{self.network_prefix(revision)}/{part.file}"
        return backbone_key(summary.backbone_digest, part.file)

    def _prefix(self, kind: str) -> str:
        return f"{TENANTS}/{self.namespace}/{kind}/{self.classifier_id}"


def is_judged(key: str, customer: str | None = None) -> bool:
    """Whether a key is that of judged scores: of this customer's images, or (None) of any images."""
    folder, _, file = key.rpartition("/")
    return folder.rpartition("/")[2] == JUDGED and (customer is None or file == f"{_CUSTOMER}{customer}.safetensors")


def uploads_prefix(namespace: str) -> str:
    """Prefix of the uploads of all classifiers of a tenant."""
    return f"{TENANTS}/{namespace}/{UPLOADS}"


def backbone_key(digest: str, file: str) -> str:
    """Key of a file of an installed backbone."""
    return f"{BACKBONES}/{digest}/{file}"


def owner_key() -> str:
    """Key of the document that names the installation that the store belongs to."""
    return f"{INSTALLATION}/{OWNER}"


def orphans_key(installation: str) -> str:
    """Key of the document in which an installation records its orphans, and since when they are orphans."""
    return f"{INSTALLATION}/{ORPHANS}/{installation}.json"


def deletions_key(installation: str) -> str:
    """Key of the document in which an installation records deleted Classifiers whose objects are pending deletion."""
    return f"{INSTALLATION}/{DELETIONS}/{installation}.json"
