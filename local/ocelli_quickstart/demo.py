"""`make demo`: the tutorial from create to delete. Each step is checked; the first unexpected answer ends it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp

from ocelli_quickstart.client import Form, Service, TutorialClient, TutorialError
from ocelli_quickstart.tutorial import DEFAULT, TutorialForms

PHOTOGRAPHS = {"china.jpg": "structure", "flower.jpg": "flower"}
"""The sample photographs, each with a class that the answer must contain."""
BUILT_IN_TIMEOUT_SECONDS = 60.0
CLASSIFY_PAUSE_SECONDS = 0.1

Say = Callable[[str], None]


async def play_tutorial(service: Service, samples: Path, say: Say) -> None:
    """Play the whole tutorial.

    Raises:
        TutorialError: a step failed.
    """
    async with aiohttp.ClientSession() as session:
        await _Tutorial(TutorialClient(service, session), samples, say).play()


class _Tutorial:
    def __init__(self, client: TutorialClient, samples: Path, say: Say) -> None:
        self._client = client
        self._forms = TutorialForms(samples=samples)
        self._say = say
        self._started = time.monotonic()

    async def play(self) -> None:
        classifier_id = await self._create()
        try:
            await self._classify_first(classifier_id)
            await self._classify_photographs()
            await self._retrain_while_classifying(classifier_id)
            await self._classify_all(classifier_id)
        finally:
            await self._delete(classifier_id)
        self._say(f"\nThe tutorial succeeded in {time.monotonic() - self._started:.1f} s.")

    async def _create(self) -> str:
        form = self._forms.create
        self._step("Create a classifier from two classes and negative examples", "POST", "/v3/classifiers", form)
        created = await self._client.call("POST", "/v3/classifiers", form)
        classifier_id: str = created["classifier_id"]
        self._say(f"  {classifier_id} is {created['status']}")
        self._step("Wait until it is ready", "GET", f"/v3/classifiers/{classifier_id}")
        started = time.monotonic()
        ready = await self._client.wait_until_settled(classifier_id)
        self._say(f"  {ready['status']} after {time.monotonic() - started:.1f} s, classes: {_class_names(ready)}")
        return classifier_id

    async def _classify_first(self, classifier_id: str) -> None:
        form = self._forms.classify("test-one.png", classifier_id)
        self._step("Classify an image that is not an example", "POST", "/v3/classify", form)
        answer = await self._client.call("POST", "/v3/classify", form)
        self._expect_top(answer, classifier_id, "one")
        form["threshold"] = "0.0"
        self._step("Classify it again, and show all scores", "POST", "/v3/classify", form)
        answer = await self._client.call("POST", "/v3/classify", form)
        self._say(f"  {_scores(answer, classifier_id)}")
        form = self._forms.classify("test-seven.png", classifier_id)
        self._step("Classify a seven, which is none of the classes", "POST", "/v3/classify", form)
        answer = await self._client.call("POST", "/v3/classify", form)
        if _scores(answer, classifier_id):
            raise TutorialError(f"a seven was classified as {_scores(answer, classifier_id)}")
        self._say("  no class reached 0.5")

    async def _classify_photographs(self) -> None:
        for name, expected in PHOTOGRAPHS.items():
            form = self._forms.classify(name, DEFAULT)
            self._step(f"Classify a photograph with the built-in classifier `{DEFAULT}`", "POST", "/v3/classify", form)
            answer = await self._ask_built_in(form)
            classes = answer["images"][0]["classifiers"][0]["classes"]
            for item in classes:
                self._say(f"  {item['score']:.3f}  {item['class']:20}  {item.get('type_hierarchy', '')}".rstrip())
            for warning in answer.get("warnings", []):
                self._say(f"  {warning['description']}")
            if "warnings" not in answer and expected not in [item["class"] for item in classes]:
                raise TutorialError(f"expected {expected!r} in {name}: {answer}")

    async def _ask_built_in(self, form: Form) -> dict[str, Any]:
        """The answer, as soon as the built-in classifier is ready: it starts after the gateway."""
        deadline = time.monotonic() + BUILT_IN_TIMEOUT_SECONDS
        while True:
            answer = await self._client.call("POST", "/v3/classify", form)
            waiting = any("is not ready yet" in warning["description"] for warning in answer.get("warnings", []))
            if not waiting or time.monotonic() > deadline:
                return answer
            await asyncio.sleep(0.25)

    async def _retrain_while_classifying(self, classifier_id: str) -> None:
        form = self._forms.retrain
        title = "Retrain with a third class and more ones, and classify at the same time"
        self._step(title, "POST", f"/v3/classifiers/{classifier_id}", form)
        retraining = await self._client.call("POST", f"/v3/classifiers/{classifier_id}", form)
        if retraining["classifier_id"] != classifier_id or retraining["status"] != "retraining":
            raise TutorialError(f"retrain answered {retraining}")
        settled = asyncio.create_task(self._client.wait_until_settled(classifier_id))
        query = self._forms.classify("test-one.png", classifier_id)
        answered = 0
        while not settled.done():
            self._expect_top(await self._client.call("POST", "/v3/classify", query), classifier_id, "one", silent=True)
            answered += 1
            # Without a pause, the requests would slow down the training.
            await asyncio.sleep(CLASSIFY_PAUSE_SECONDS)
        ready = await settled
        self._say(f"  ready again, classes: {_class_names(ready)}; {answered} classify requests succeeded during the training")

    async def _classify_all(self, classifier_id: str) -> None:
        form = self._forms.classify("tests.zip", classifier_id, DEFAULT)
        self._step("Classify a zip of fifteen images with two classifiers", "POST", "/v3/classify", form)
        answer = await self._client.call("POST", "/v3/classify", form)
        right = 0
        for image in answer["images"]:
            expected = image["image"].split("/")[-2]
            scores = next(item["classes"] for item in image["classifiers"] if item["classifier_id"] == classifier_id)
            right += bool(scores) and scores[0]["class"] == expected
        self._say(f"  {right} of {answer['images_processed']} are correct")
        if right < 12:
            raise TutorialError(f"only {right} of {answer['images_processed']} images were classified correctly")

    async def _delete(self, classifier_id: str) -> None:
        path = f"/v3/classifiers/{classifier_id}"
        self._step("Delete the classifier", "DELETE", path)
        await self._client.call("DELETE", path)
        await self._client.call("GET", path, expect=404)
        self._say("  deleted: GET answers 404")

    def _expect_top(self, answer: dict[str, Any], classifier_id: str, expected: str, *, silent: bool = False) -> None:
        scores = _scores(answer, classifier_id)
        if not scores.startswith(f"{expected} "):
            raise TutorialError(f"expected {expected!r}, got {scores!r}: {answer}")
        if not silent:
            self._say(f"  {scores}")

    def _step(self, title: str, method: str, path: str, form: Form | None = None) -> None:
        self._say(f"\n{title}\n  $ {self._client.service.curl(method, path, form)}")


def _class_names(details: dict[str, Any]) -> str:
    return ", ".join(sorted(item["class"] for item in details["classes"]))


def _scores(answer: dict[str, Any], classifier_id: str) -> str:
    image = answer["images"][0]
    classes = next(item["classes"] for item in image["classifiers"] if item["classifier_id"] == classifier_id)
    return ", ".join(f"{item['class']} {item['score']:.3f}" for item in classes)
