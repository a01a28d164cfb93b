"""The life of a classifier through old Python SDKs of IBM's service, each run in an environment of its own.

Called with a JSON document (see `tests/long/test_old_clients.py`); prints one JSON line for each step, with what went wrong in
it. It imports nothing of Ocelli: it is a program that was written for the other service.
"""

import json
import sys
import time
import traceback
from pathlib import Path

VERSION = "2018-03-19"
DEADLINE_SECONDS = 300


class Python17:
    """watson-developer-cloud 1: answers are dictionaries, examples are keywords."""

    def __init__(self, options):
        from watson_developer_cloud import VisualRecognitionV3, WatsonApiException

        self.refused = WatsonApiException
        self.service = VisualRecognitionV3(
            VERSION, url=options["address"], iam_apikey=options["apiKey"], iam_url=options["tokenAddress"]
        )

    def create(self, name, classes, negatives):
        return self.result(self.service.create_classifier(name, negative_examples=negatives, **self.positives(classes)))

    def retrain(self, classifier_id, classes):
        return self.result(self.service.update_classifier(classifier_id, **self.positives(classes)))

    def get(self, classifier_id):
        return self.result(self.service.get_classifier(classifier_id))

    def list(self):
        return self.result(self.service.list_classifiers())

    def classify(self, **arguments):
        return self.result(self.service.classify(**arguments))

    def core_ml(self, classifier_id):
        return self.result(self.service.get_core_ml_model(classifier_id)).content

    def delete(self, classifier_id):
        self.service.delete_classifier(classifier_id)

    def positives(self, classes):
        return {name + "_positive_examples": file for name, file in classes.items()}

    def result(self, answer):
        return answer


class Python210(Python17):
    """watson-developer-cloud 2: answers are wrapped, else as before."""

    def result(self, answer):
        return answer.get_result()


class Python47(Python210):
    """ibm-watson 4: authenticators, and classes as a dictionary."""

    def __init__(self, options):
        from ibm_cloud_sdk_core import ApiException
        from ibm_cloud_sdk_core.authenticators import IAMAuthenticator
        from ibm_watson import VisualRecognitionV3

        self.refused = ApiException
        authenticator = IAMAuthenticator(options["apiKey"], url=options["tokenAddress"])
        self.service = VisualRecognitionV3(VERSION, authenticator=authenticator)
        self.service.set_service_url(options["address"])

    def create(self, name, classes, negatives):
        return self.result(self.service.create_classifier(name, classes, negative_examples=negatives))

    def retrain(self, classifier_id, classes):
        return self.result(self.service.update_classifier(classifier_id, positive_examples=classes))


GENERATIONS = {"1.7": Python17, "2.10": Python210, "4.7": Python47}


class Life:
    """The steps, in their order; each is a method."""

    def __init__(self, options):
        self.options = options
        self.samples = Path(options["samples"])
        self.client = GENERATIONS[options["generation"]](options)
        self.name = "python " + options["generation"]
        self.classifier_id = None

    def sample(self, name):
        return (self.samples / name).open("rb")

    def wait_until_ready(self):
        deadline = time.monotonic() + DEADLINE_SECONDS
        while True:
            found = self.client.get(self.classifier_id)
            if found["status"] == "ready":
                return found
            assert found["status"] in ("training", "retraining"), found
            assert time.monotonic() < deadline, found
            time.sleep(0.3)

    def classes(self, result):
        return [item["class"] for item in result["images"][0]["classifiers"][0]["classes"]]

    def refusal(self, call, **arguments):
        """The exception that a call ends with."""
        try:
            result = call(**arguments)
        except self.client.refused as error:
            return error
        raise AssertionError(f"it was not refused: {result}")

    def create(self):
        classes = {"zero": self.sample("zero.zip"), "one": self.sample("one.zip")}
        created = self.client.create(self.name, classes, self.sample("other-digits.zip"))
        assert created["status"] == "training", created
        assert sorted(item["class"] for item in created["classes"]) == ["one", "zero"], created
        self.classifier_id = created["classifier_id"]

    def poll(self):
        assert self.wait_until_ready()["core_ml_enabled"] is True

    def list(self):
        listed = self.client.list()["classifiers"]
        assert [item["status"] for item in listed if item["classifier_id"] == self.classifier_id] == ["ready"], listed

    def classify_file(self):
        result = self.client.classify(images_file=self.sample("test-one.png"), classifier_ids=[self.classifier_id])
        assert self.classes(result) == ["one"], result

    def classify_threshold(self):
        # A number is sent as it is by version 4 only; the others want text.
        result = self.client.classify(
            images_file=self.sample("test-one.png"), threshold="0.0", classifier_ids=[self.classifier_id]
        )
        assert sorted(self.classes(result)) == ["one", "zero"], result

    def classify_zip(self):
        result = self.client.classify(images_file=self.sample("tests.zip"), classifier_ids=[self.classifier_id, "default"])
        assert result["images_processed"] == len(result["images"]) > 1, result
        answered = [item["classifier_id"] for item in result["images"][0]["classifiers"]]
        assert answered == [self.classifier_id, "default"], result

    def classify_url(self):
        result = self.client.classify(url=self.options["imageURL"], classifier_ids=[self.classifier_id])
        assert self.classes(result) == ["one"], result

    def classify_url_error(self):
        error = self.refusal(self.client.classify, url=self.options["missingURL"], classifier_ids=[self.classifier_id])
        assert error.code == 400, error
        assert "URL Fetcher error: " in str(error), error

    def retrain(self):
        changed = self.client.retrain(self.classifier_id, {"two": self.sample("two.zip"), "one": self.sample("more-ones.zip")})
        assert changed["status"] == "retraining", changed
        ready = self.wait_until_ready()
        assert sorted(item["class"] for item in ready["classes"]) == ["one", "two", "zero"], ready

    def core_ml(self):
        assert b"zero" in self.client.core_ml(self.classifier_id)

    def delete(self):
        self.client.delete(self.classifier_id)
        error = self.refusal(self.client.get, classifier_id=self.classifier_id)
        assert error.code == 404, error


def main():
    options = json.loads(sys.argv[1])
    life = Life(options)
    for step in options["steps"]:
        try:
            getattr(life, step)()
            error = None
        except Exception:
            error = traceback.format_exc()
        print(json.dumps({"step": step, "error": error}), flush=True)


if __name__ == "__main__":
    main()
