"""The layout of the object store.

    backbones/<digest>/…                                          written by the installation only, readable by all
    tenants/<namespace>/uploads/<classifier id>/<sha256>.zip      examples uploaded by REST; `pending` is next to them if they
                                                                  were sent before a Classifier refers to them
    tenants/<namespace>/sources/<classifier id>/<sha256>          copies of pinned sources, if the installation keeps them
    tenants/<namespace>/trainings/<classifier id>/<revision>/<attempt>/{definition,progress,outcome}.json
                                                                  a check before the training adds `check/`: its outcome and its
                                                                  reports; and `image-data/`: thumbnails, and what it read, for
                                                                  the training;
                                                                  fine-tuning adds `checkpoint.json` and a file that it names
    tenants/<namespace>/artifacts/<classifier id>/<revision>/…    `artifact.json` is written last: it completes the artifact;
                                                                  `definition.json` (what was learned; erasure changes it),
                                                                  `report.json`, `report.html`, `bom.cdx.json` (what it was made
                                                                  from) and `signature.json` are next to it; its own network,
                                                                  if it has one, is below `network/`; the curves of its
                                                                  fine-tuning are below `tensorboard/`; what was
                                                                  computed of single images is below `image-data/`, that of
                                                                  each customer's images in `image-data/customer-<key>/`, so
                                                                  that an erasure deletes files and reads none: the judged
                                                                  scores, thumbnails, and, for the revision trained last,
                                                                  the feature cache
    installation/owner.json                                       the installation that the store belongs to
    installation/orphans/<installation>.json                      orphans that its sweep has found, and since when
    installation/deletions/<installation>.json                    deleted Classifiers whose objects are pending deletion

Keys use the classifier id, not the UID, so that a restored backup finds its artifacts.
"""

from __future__ import annotations

from dataclasses import dataclass

from ocelli_api.classifier import Classifier
from ocelli_api.export import ArtifactSummary, ExportPart, PartPlace

TENANTS = "tenants"
BACKBONES = "backbones"
UPLOADS = "uploads"
SOURCES = "sources"
TRAININGS = "trainings"
ARTIFACTS = "artifacts"
KINDS = (UPLOADS, SOURCES, TRAININGS, ARTIFACTS)
"""The kinds of objects of a classifier. Each has a folder in the tenant's folder."""
ARTIFACT_METADATA = "artifact.json"
DEFINITION = "definition.json"
PROGRESS = "progress.json"
OUTCOME = "outcome.json"
REPORT = "report.json"
REPORT_PAGE = "report.html"
BILL_OF_MATERIALS = "bom.cdx.json"
SIGNATURE = "signature.json"
NETWORK = "network"
CURVES = "tensorboard"
ZIP_SUFFIX = ".zip"
PENDING = "pending"
"""Name of the mark of uploads that were sent before a Classifier refers to them."""
CHECK = "check"
CHECK_OUTCOME = f"{CHECK}/{OUTCOME}"
CHECK_REPORT = f"{CHECK}/{REPORT}"
CHECK_PAGE = f"{CHECK}/{REPORT_PAGE}"
CHECKPOINT = "checkpoint"
"""What the names of the files of checkpoints begin with."""
IMAGE_DATA = "image-data"
THUMBNAILS = "thumbnails.safetensors"
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

    @classmethod
    def of(cls, classifier: Classifier) -> ClassifierLocation:
        """The location of a Classifier, which has an id."""
        return cls(namespace=classifier.namespace, classifier_id=classifier.classifier_id or "")

    @property
    def prefixes(self) -> tuple[str, ...]:
        """The prefixes of all its objects."""
        return tuple(self._prefix(kind) for kind in KINDS)

    @property
    def artifacts_prefix(self) -> str:
        return self._prefix(ARTIFACTS)

    @property
    def uploads_prefix(self) -> str:
        return self._prefix(UPLOADS)

    @property
    def sources_prefix(self) -> str:
        return self._prefix(SOURCES)

    @property
    def trainings_prefix(self) -> str:
        return self._prefix(TRAININGS)

    def upload_key(self, sha256: str) -> str:
        """Key of the uploaded zip with that digest (hex)."""
        return f"{self._prefix(UPLOADS)}/{sha256}{ZIP_SUFFIX}"

    @property
    def pending_uploads_key(self) -> str:
        """Key of the mark of uploads that no Classifier may ever refer to."""
        return f"{self._prefix(UPLOADS)}/{PENDING}"

    def find_upload_digest(self, key: str) -> str | None:
        """The digest of the uploaded zip at a key; None for other keys."""
        folder, _, file = key.rpartition("/")
        digest = file.removesuffix(ZIP_SUFFIX)
        return digest if folder == self.uploads_prefix and digest != file else None

    def source_key(self, sha256: str) -> str:
        """Key of the copy of a pinned source with that digest (hex)."""
        return f"{self._prefix(SOURCES)}/{sha256}"

    def training_key(self, revision: str, attempt: int, file: str) -> str:
        """Key of a file of one attempt, such as `DEFINITION` or `CHECK_REPORT`."""
        return f"{self._prefix(TRAININGS)}/{revision}/{attempt}/{file}"

    def checked_prefix(self, revision: str, attempt: int) -> str:
        """Prefix of what the check of an attempt read, which is erased with the images."""
        return self.training_key(revision, attempt, IMAGE_DATA)

    def checked_key(self, revision: str, attempt: int, customer: str | None, file: str) -> str:
        """Key of a file about the checked images of one customer (by key), or about all images without a customer."""
        return f"{self.checked_prefix(revision, attempt)}/{_owned_name(customer, file)}"

    def artifact_key(self, revision: str, file: str) -> str:
        """Key of a file of the artifact of a revision."""
        return f"{self._prefix(ARTIFACTS)}/{revision}/{file}"

    def revision_prefix(self, revision: str) -> str:
        """Prefix of everything that is stored with the artifact of a revision."""
        return f"{self._prefix(ARTIFACTS)}/{revision}"

    def training_prefix(self, revision: str) -> str:
        """Prefix of the documents of all attempts at a revision."""
        return f"{self._prefix(TRAININGS)}/{revision}"

    def definition_key(self, revision: str) -> str:
        """Key of the definition of a learned revision: classes, sources and recipe, without erased sources."""
        return self.artifact_key(revision, DEFINITION)

    def network_prefix(self, revision: str) -> str:
        """Prefix of a revision's own network."""
        return self.artifact_key(revision, NETWORK)

    def curves_prefix(self, revision: str) -> str:
        """Prefix of the curves of a revision's fine-tuning."""
        return self.artifact_key(revision, CURVES)

    def image_data_prefix(self, revision: str) -> str:
        """Prefix of everything that a training computed of single images, and that is erased with them."""
        return self.artifact_key(revision, IMAGE_DATA)

    def image_data_key(self, revision: str, customer: str | None, file: str) -> str:
        """Key of a file about the images of one customer (by key), or about all images without a customer."""
        return f"{self.image_data_prefix(revision)}/{_owned_name(customer, file)}"

    def export_part_key(self, revision: str, summary: ArtifactSummary, part: ExportPart) -> str:
        """Key of a part of an export of a revision."""
        if part.place is PartPlace.ARTIFACT:
            return self.artifact_key(revision, part.file)
        if summary.backbone_place is PartPlace.ARTIFACT:
            return f"{self.network_prefix(revision)}/{part.file}"
        return backbone_key(summary.backbone_digest, part.file)

    def _prefix(self, kind: str) -> str:
        return f"{TENANTS}/{self.namespace}/{kind}/{self.classifier_id}"


def is_image_data(key: str, customer: str | None = None) -> bool:
    """Whether a key is that of data about images: of this customer's, or (None) of any."""
    parts = key.split("/")
    # tenants/<namespace>/artifacts/<classifier id>/<revision>/image-data/…, or trainings/…/<revision>/<attempt>/image-data/…
    folder = {ARTIFACTS: 5, TRAININGS: 6}.get("".join(parts[2:3]))
    if folder is None or parts[folder : folder + 1] != [IMAGE_DATA]:
        return False
    return customer is None or parts[folder + 1 : folder + 2] == [f"{_CUSTOMER}{customer}"]


def is_page(key: str) -> bool:
    """Whether a key is that of a report with thumbnails, of a training or of a check."""
    return key.rpartition("/")[2] == REPORT_PAGE


def _owned_name(customer: str | None, file: str) -> str:
    return file if customer is None else f"{_CUSTOMER}{customer}/{file}"


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
