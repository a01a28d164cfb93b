"""The tutorial's requests: `make run` prints them as commands, `make demo` sends them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ocelli_quickstart.client import Form, Service

DEFAULT = "default"


@dataclass(frozen=True, kw_only=True)
class TutorialForms:
    """The forms of the requests, with the files of `samples`."""

    samples: Path

    @property
    def create(self) -> Form:
        return {
            "name": "digits",
            "zero_positive_examples": self.samples / "zero.zip",
            "one_positive_examples": self.samples / "one.zip",
            "negative_examples": self.samples / "other-digits.zip",
        }

    @property
    def retrain(self) -> Form:
        return {"two_positive_examples": self.samples / "two.zip", "one_positive_examples": self.samples / "more-ones.zip"}

    def classify(self, image: str, *classifier_ids: str) -> Form:
        return {"images_file": self.samples / image, "classifier_ids": ",".join(classifier_ids)}


def list_commands(service: Service, samples: Path) -> list[tuple[str, str]]:
    """Titles and commands, ready to paste."""
    forms, identity = TutorialForms(samples=samples), "$ID"
    test = forms.classify("test-one.png", identity)
    photograph = forms.classify("china.jpg", DEFAULT, "food", "explicit")
    return [
        ("classify a photograph with the built-in classifiers", service.curl("POST", "/v3/classify", photograph)),
        ("create a classifier; the answer contains its classifier_id", service.curl("POST", "/v3/classifiers", forms.create)),
        ("paste that id here", "ID=digits_..."),
        ("repeat until its status is ready", service.curl("GET", f"/v3/classifiers/{identity}")),
        ("classify", service.curl("POST", "/v3/classify", test)),
        ("classify, and show all scores", service.curl("POST", "/v3/classify", {**test, "threshold": "0.0"})),
        ("retrain: add a class, and examples of another", service.curl("POST", f"/v3/classifiers/{identity}", forms.retrain)),
        (
            "classify a zip of images with two classifiers",
            service.curl("POST", "/v3/classify", forms.classify("tests.zip", identity, DEFAULT)),
        ),
        ("delete the classifier", service.curl("DELETE", f"/v3/classifiers/{identity}")),
    ]
