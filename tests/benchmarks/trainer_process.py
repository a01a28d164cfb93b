"""The trainer in a separate process with its own store, as the operator's Job would run it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ocelli_api.classifier import ClassifierSpec, ExampleClass, ModelRecipe, Source
from ocelli_api.pods import Environment
from ocelli_api.revision import definition, spec_revision
from ocelli_model.backbones.families import DEFAULT_BACKBONE
from ocelli_storage.layout import DEFINITION, ClassifierLocation

LOCATION = ClassifierLocation(namespace="benchmark", classifier_id="benchmark_1")


class TrainerProcessError(Exception):
    """A training failed."""


@dataclass(frozen=True, kw_only=True)
class TrainerProcess:
    """Runs trainings of the same examples, each for its own revision."""

    folder: Path
    zips: Mapping[str, Path]
    """By class; all of them in one folder."""
    backbones: str
    cores: int
    negatives: Path | None = None
    """In the same folder."""
    model: ModelRecipe | None = None
    """None: the default."""

    @classmethod
    def prepare(cls, folder: Path, zips: Mapping[str, Path], *, cores: int) -> TrainerProcess:
        """Install the default backbone into a store in the folder."""
        command = [sys.executable, "-m", "ocelli_model.publish", "--store", (folder / "store").as_uri(), DEFAULT_BACKBONE]
        published = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
        return cls(folder=folder, zips=zips, backbones=published, cores=cores)

    @property
    def store_url(self) -> str:
        return (self.folder / "store").as_uri()

    def run(self, number: int) -> str:
        """One training, from the start of its process to its end; the revision that it learned, another one for each number.

        Raises:
            TrainerProcessError: it failed.
        """

        def sources(path: Path | None) -> tuple[Source, ...]:
            return () if path is None else (Source(url=f"file:///{path.name}", round=number),)

        spec = ClassifierSpec(
            classes=tuple(ExampleClass(name=name, examples=sources(path)) for name, path in self.zips.items()),
            negative_examples=sources(self.negatives),
            model=self.model or ModelRecipe(),
        )
        revision = spec_revision(spec)
        target = self.folder / "store" / LOCATION.training_key(revision, 1, DEFINITION)
        target.parent.mkdir(parents=True)
        target.write_text(json.dumps(definition(spec)))
        environment = {
            Environment.STORE_URL: self.store_url,
            Environment.CLASSIFIER: "benchmark/benchmark",
            Environment.NAMESPACE: LOCATION.namespace,
            Environment.CLASSIFIER_ID: LOCATION.classifier_id,
            Environment.REVISION: revision,
            Environment.ATTEMPT: "1",
            Environment.BACKBONES: self.backbones,
            Environment.FILE_SOURCES_FOLDER: str(next(iter(self.zips.values())).parent),
            Environment.SCRATCH_FOLDER: str(self.folder),
            Environment.TERMINATION_MESSAGE_PATH: str(self.folder / "termination"),
            Environment.CPU_LIMIT: str(self.cores),
        }
        command = [sys.executable, "-m", "ocelli_training"]
        done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            said = (self.folder / "termination").read_text() if (self.folder / "termination").exists() else done.stderr[-2000:]
            raise TrainerProcessError(f"the trainer ended with exit status {done.returncode}: {said}")
        return revision
