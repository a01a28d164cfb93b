"""The trainer in a separate process with its own store, as the operator's Job would run it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ocelli_api.classifier import ClassifierSpec, ExampleClass, ModelRecipe, Source
from ocelli_api.pods import Environment
from ocelli_api.revision import definition, spec_revision
from ocelli_model.backbones.families import DEFAULT_BACKBONE
from ocelli_storage.layout import DEFINITION, ClassifierLocation
from tests.benchmarks.processes import memory_megabytes

LOCATION = ClassifierLocation(namespace="benchmark", classifier_id="benchmark_1")

_POLL_SECONDS = 0.01


class TrainerProcessError(Exception):
    """A training failed."""


@dataclass(frozen=True, kw_only=True)
class MeasuredTraining:
    """One training, and what it needed."""

    revision: str
    seconds: float
    """From the start of the process to its end."""
    peak_megabytes: float
    """Resident memory."""
    events: tuple[dict[str, Any], ...]
    """The lines of its log."""

    def seconds_of(self, event: str) -> float:
        """What the log says about the duration of a stage."""
        return float(next(line["seconds"] for line in self.events if line["event"] == event))


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
        return self.measure(number).revision

    def measure(self, number: int) -> MeasuredTraining:
        """As `run`, with what the training needed."""

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
        started, peak = time.monotonic(), 0.0
        log = self.folder / f"training-{number}.log"
        with log.open("wb") as file:
            process = subprocess.Popen(command, env={**os.environ, **environment}, stdout=file, stderr=file)
        # Its peak is readable as long as it runs.
        while process.poll() is None:
            with suppress(OSError, StopIteration):
                peak = max(peak, memory_megabytes(process.pid, "VmHWM"))
            time.sleep(_POLL_SECONDS)
        seconds = time.monotonic() - started
        text = log.read_text()
        if process.returncode != 0:
            said = (self.folder / "termination").read_text() if (self.folder / "termination").exists() else text[-2000:]
            raise TrainerProcessError(f"the trainer ended with exit status {process.returncode}: {said}")
        events = tuple(json.loads(line) for line in text.splitlines() if line.startswith("{"))
        return MeasuredTraining(revision=revision, seconds=seconds, peak_megabytes=peak, events=events)
