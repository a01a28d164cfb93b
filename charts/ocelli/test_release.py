"""What `helm test` runs: a classifier over REST from create to delete. Each step says what it saw."""

import asyncio
import io
import os
import sys
import time
import zipfile
from typing import Any

import aiohttp
import numpy as np
from PIL import Image

VERSION = {"version": "2018-03-19"}
READY_SECONDS = 300
IMAGES = 12


def draw(random: np.random.Generator, striped: bool) -> bytes:
    """A PNG of 64 x 64: noise, with stripes across it or without."""
    pixels = random.integers(0, 96, (64, 64, 3))
    if striped:
        pixels[:: random.integers(6, 10)] += 150
    stream = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(stream, "PNG")
    return stream.getvalue()


def draw_zip(random: np.random.Generator, striped: bool) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for number in range(IMAGES):
            archive.writestr(f"{number}.png", draw(random, striped))
    return stream.getvalue()


async def main() -> int:
    api_key = os.environ.get("OCELLI_API_KEY", "")
    if not api_key:
        print("There is no API key to test with: its Secret, or the key in it, is missing. Name one in test.apiKeySecret.")
        return 1
    random = np.random.default_rng(7)
    login = {"Authorization": aiohttp.encode_basic_auth("apikey", api_key)}
    async with aiohttp.ClientSession(os.environ["OCELLI_URL"], headers=login, raise_for_status=check) as session:
        form = aiohttp.FormData({"name": "helm-test"})
        form.add_field("striped_positive_examples", draw_zip(random, True), filename="striped.zip")
        form.add_field("plain_positive_examples", draw_zip(random, False), filename="plain.zip")
        started = time.monotonic()
        async with session.post("/v3/classifiers", params=VERSION, data=form) as answer:
            identity = (await answer.json())["classifier_id"]
        print(f"created {identity}")
        try:
            while (details := await read_details(session, identity))["status"] != "ready":
                seconds = time.monotonic() - started
                if details["status"] == "failed" or seconds > READY_SECONDS:
                    reason = details.get("explanation", "no reason yet; see kubectl describe classifiers")
                    print(f"{identity} is {details['status']} after {seconds:.0f} s: {reason}")
                    return 1
                await asyncio.sleep(1)
            print(f"ready after {time.monotonic() - started:.1f} s")
            form = aiohttp.FormData({"classifier_ids": identity, "threshold": "0"})
            form.add_field("images_file", draw(random, True), filename="image.png")
            async with session.post("/v3/classify", params=VERSION, data=form) as answer:
                classes = (await answer.json())["images"][0]["classifiers"][0]["classes"]
            scores = {item["class"]: item["score"] for item in classes}
            print(f"classified: {scores}")
            return 0 if scores["striped"] > scores["plain"] else 1
        finally:
            async with session.delete(f"/v3/classifiers/{identity}", params=VERSION):
                print("deleted")


async def check(answer: aiohttp.ClientResponse) -> None:
    if answer.status != 200:
        raise SystemExit(f"{answer.method} {answer.url.path}: {answer.status} {await answer.text()}")


async def read_details(session: aiohttp.ClientSession, identity: str) -> dict[str, Any]:
    async with session.get(f"/v3/classifiers/{identity}", params=VERSION) as answer:
        details: dict[str, Any] = await answer.json()
        return details


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
