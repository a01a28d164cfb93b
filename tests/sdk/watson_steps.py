"""The life of a classifier through the Python SDK of IBM's service, run in its own environment (requirements/sdk.txt).

Called with a JSON document (see `tests/product/test_official_sdks.py`); prints one JSON line for each step, with its error or
null. It imports nothing from Ocelli, like a program that was written for IBM's service.
"""

import io
import json
import sys
import time
import traceback
from pathlib import Path

import requests
from ibm_cloud_sdk_core import ApiException
from ibm_cloud_sdk_core.authenticators import (
    BasicAuthenticator,
    BearerTokenAuthenticator,
    IAMAuthenticator,
    NoAuthAuthenticator,
)
from ibm_watson import VisualRecognitionV3
from ibm_watson.visual_recognition_v3 import ClassifiedImages, Classifier, Classifiers

VERSION = "2018-03-19"
DEADLINE_SECONDS = 90


def connect(options):
    """A client with the requested way to log in."""
    way, key = options["way"], options["apiKey"]
    if way == "environment":
        # The caller sets VISUAL_RECOGNITION_AUTH_TYPE and the other variables.
        return VisualRecognitionV3(VERSION)
    if way == "basic":
        authenticator = BasicAuthenticator(options["user"], options["password"])
    elif way == "basic apikey":
        authenticator = BasicAuthenticator("apikey", key)
    elif way == "iam":
        authenticator = IAMAuthenticator(key, url=options["address"])
    elif way == "bearer":
        form = {"grant_type": "urn:ibm:params:oauth:grant-type:apikey", "apikey": key, "response_type": "cloud_iam"}
        answer = requests.post(options["address"] + "/identity/token", data=form, timeout=30)
        answer.raise_for_status()
        authenticator = BearerTokenAuthenticator(answer.json()["access_token"])
    else:
        authenticator = NoAuthAuthenticator()
    service = VisualRecognitionV3(VERSION, authenticator=authenticator)
    service.set_service_url(options["address"] + options["prefix"])
    if way == "api_key in the query":
        session = requests.Session()
        session.params = {"api_key": key}
        service.set_http_client(session)
    return service


class Life:
    """The steps in order; each is a method.

    With the option `servedID`, steps that need a trained classifier use that one, and none waits for a training.
    """

    def __init__(self, options):
        self.options = options
        self.samples = Path(options["samples"])
        self.service = connect(options)
        self.name = "sdk " + options["way"]
        self.classifier_id = None
        self.served_id = options["servedID"]

    def sample(self, name):
        return io.BytesIO((self.samples / name).read_bytes())

    def wait_until(self, status):
        deadline = time.monotonic() + DEADLINE_SECONDS
        while True:
            found = Classifier.from_dict(self.service.get_classifier(self.served_id).get_result())
            if found.status == status:
                return found
            assert found.status in ("training", "retraining"), found
            assert time.monotonic() < deadline, found
            time.sleep(0.3)

    def classify(self, **arguments):
        result = self.service.classify(**arguments).get_result()
        ClassifiedImages.from_dict(result)
        return result

    def classes(self, result, image=0, classifier=0):
        return [item["class"] for item in result["images"][image]["classifiers"][classifier]["classes"]]

    def refusal(self, call, **arguments):
        """The exception that a call raises."""
        try:
            call(**arguments)
        except ApiException as error:
            return error
        raise AssertionError("it was not refused")

    def create(self):
        result = self.service.create_classifier(
            self.name,
            {"zero": self.sample("zero.zip"), "one": self.sample("one.zip")},
            negative_examples=self.sample("other-digits.zip"),
            negative_examples_filename="other-digits.zip",
        )
        created = Classifier.from_dict(result.get_result())
        assert created.name == self.name
        assert created.status == "training"
        assert sorted(item.class_ for item in created.classes) == ["one", "zero"]
        self.classifier_id = created.classifier_id
        self.served_id = self.served_id or self.classifier_id

    def poll(self):
        ready = self.wait_until("ready")
        assert ready.created == ready.updated
        assert ready.core_ml_enabled is True

    def list(self):
        brief = Classifiers.from_dict(self.service.list_classifiers().get_result())
        assert [item.status for item in brief.classifiers if item.classifier_id == self.served_id] == ["ready"]
        assert brief.classifiers[0].classes is None

    def list_verbose(self):
        verbose = Classifiers.from_dict(self.service.list_classifiers(verbose=True).get_result())
        (own,) = [item for item in verbose.classifiers if item.classifier_id == self.served_id]
        assert len(own.classes) == 2

    def classify_file(self):
        with (self.samples / "test-one.png").open("rb") as image:
            result = self.classify(images_file=image, classifier_ids=[self.served_id])
        assert self.classes(result) == ["one"], result
        assert result["images"][0]["image"] == "test-one.png"

    def classify_threshold(self):
        result = self.classify(
            images_file=self.sample("test-one.png"),
            images_filename="a.png",
            threshold="0.0",
            classifier_ids=[self.served_id],
        )
        assert sorted(self.classes(result)) == ["one", "zero"], result

    def classify_zip(self):
        with (self.samples / "tests.zip").open("rb") as archive:
            result = self.classify(images_file=archive, classifier_ids=[self.served_id, "default"])
        assert result["images_processed"] == len(result["images"]) > 1
        assert [item["classifier_id"] for item in result["images"][0]["classifiers"]] == [self.served_id, "default"]

    def classify_url(self):
        result = self.classify(url=self.options["imageURL"], classifier_ids=[self.served_id])
        assert self.classes(result) == ["one"], result
        assert result["images"][0]["source_url"] == self.options["imageURL"]

    def classify_owners(self):
        result = self.classify(url=self.options["imageURL"], owners=["me", "IBM"], accept_language="de")
        answered = [item["classifier_id"] for item in result["images"][0]["classifiers"]]
        assert self.served_id in answered, result
        assert "default" in answered, result

    def classify_nothing(self):
        error = self.refusal(self.service.classify, classifier_ids=[self.classifier_id])
        assert (error.code, error.message) == (400, "No images were specified."), error

    def retrain(self):
        examples = {"two": self.sample("two.zip"), "one": self.sample("more-ones.zip")}
        try:
            result = self.service.update_classifier(self.classifier_id, positive_examples=examples)
        except ApiException as error:
            # Without waiting for a training, the classifier is still in its first one.
            if self.served_id != self.classifier_id and error.code == 400 and "training" in error.message:
                return
            raise
        changed = Classifier.from_dict(result.get_result())
        assert changed.status == "retraining"
        assert sorted(item.class_ for item in changed.classes) == ["one", "two", "zero"]
        if self.served_id == self.classifier_id:
            ready = self.wait_until("ready")
            assert ready.retrained == ready.updated > ready.created

    def core_ml(self):
        response = self.service.get_core_ml_model(self.served_id)
        assert response.get_headers()["Content-Type"] == "application/octet-stream"
        content = response.get_result().content
        assert b"zero" in content, len(content)

    def user_data(self):
        customer = "customer of " + self.options["way"]
        created = self.service.create_classifier(
            "of a customer",
            {"zero": self.sample("zero.zip"), "one": self.sample("one.zip")},
            headers={"X-Watson-Metadata": "customer_id=" + customer},
        ).get_result()
        response = self.service.delete_user_data(customer)
        assert response.get_status_code() == 202
        # Erasing may take a minute by the contract; here it is finished with the answer.
        error = self.refusal(self.service.get_classifier, classifier_id=created["classifier_id"])
        assert error.code == 404, error

    def delete(self):
        assert self.service.delete_classifier(self.classifier_id).get_result() == {}
        error = self.refusal(self.service.get_classifier, classifier_id=self.classifier_id)
        assert error.code == 404, error


STEPS = (
    "create",
    "poll",
    "list",
    "list_verbose",
    "classify_file",
    "classify_threshold",
    "classify_zip",
    "classify_url",
    "classify_owners",
    "classify_nothing",
    "retrain",
    "core_ml",
    "user_data",
    "delete",
)


def main():
    life = Life(json.loads(sys.argv[1]))
    for step in STEPS:
        try:
            getattr(life, step)()
            error = None
        except Exception:
            error = traceback.format_exc()
        print(json.dumps({"step": step, "error": error}), flush=True)


if __name__ == "__main__":
    main()
