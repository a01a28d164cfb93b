"""The layout of the object store.

    backbones/<digest>/…                                          written by the installation only, readable by all
    tenants/<namespace>/uploads/<classifier id>/<sha256>.zip      examples uploaded by REST
    tenants/<namespace>/trainings/<classifier id>/<revision>/<attempt>/{definition,progress,outcome}.json
                                                                  a check before the training adds `check/`: its outcome and its
                                                                  reports; and `pictures/`: what it read, for the training, the
                                                                  pictures of each customer in files of their own
    tenants/<namespace>/artifacts/<classifier id>/<revision>/…    `artifact.json` is written last: it completes the artifact;
                                                                  `definition.json` (what was learned; erasure changes it),
                                                                  `report.json` and `report.html` are next to it; its own
                                                                  network, if it has one, is below `network/`; the scores of
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
CHECK = "check"
CHECK_OUTCOME = f"{CHECK}/{OUTCOME}"
CHECK_REPORT = f"{CHECK}/{REPORT}"
CHECK_PAGE = f"{CHECK}/{REPORT_PAGE}"
PICTURES = "pictures"
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
        """Key of a file of one attempt, such as `DEFINITION` or `CHECK_REPORT`."""
        return f"{self._prefix(TRAININGS)}/{revision}/{attempt}/{file}"

    def pictures_prefix(self, revision: str, attempt: int) -> str:
        """Prefix of the pictures that the check of an attempt read."""
        return self.training_key(revision, attempt, PICTURES)

    def pictures_key(self, revision: str, attempt: int, customer: str | None, suffix: str) -> str:
        """Key of a file of the checked pictures of one customer (by key), or of all pictures without a customer."""
        return f"{self.pictures_prefix(revision, attempt)}/{_owned_name(customer)}.{suffix}"

    def artifact_key(self, revision: str, file: str) -> str:
        """Key of a file of the artifact of a revision."""
        return f"{self._prefix(ARTIFACTS)}/{revision}/{file}"

    def definition_key(self, revision: str) -> str:
        """Key of the definition of a learned revision: classes, sources and recipe, without erased sources."""
        return self.artifact_key(revision, DEFINITION)

    def network_prefix(self, revision: str) -> str:
        """Prefix of a revision's own network."""
        return self.artifact_key(revision, NETWORK)

    def judged_prefix(self, revision: str) -> str:
        """Prefix of the judged scores of a revision."""
        return self.artifact_key(revision, JUDGED)

    def judged_key(self, revision: str, customer: str | None) -> str:
        """Key of the judged scores of the images of one customer (by key), or of all images without a customer."""
        return f"{self.judged_prefix(revision)}/{_owned_name(customer)}.safetensors"

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
    return _is_in(JUDGED, key, customer)


def is_of_pictures(key: str, customer: str | None = None) -> bool:
    """Whether an object has to go with its pictures: judged scores, or what a check read. With a customer: whether it is about
    the pictures of this customer."""
    return _is_in(JUDGED, key, customer) or _is_in(PICTURES, key, customer)


def is_page(key: str) -> bool:
    """Whether a key is that of a report with thumbnails, of a training or of a check."""
    return key.rpartition("/")[2] == REPORT_PAGE


def _is_in(folder: str, key: str, customer: str | None) -> bool:
    path, _, file = key.rpartition("/")
    return path.rpartition("/")[2] == folder and (customer is None or file.partition(".")[0] == _owned_name(customer))


def _owned_name(customer: str | None) -> str:
    return "images" if customer is None else f"{_CUSTOMER}{customer}"


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
