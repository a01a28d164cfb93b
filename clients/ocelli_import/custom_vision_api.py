"""The part of Azure Custom Vision's training API (REST, v3.3) that an import reads: projects, tags, tagged images, counts.

Written from Microsoft's description of the API. The training key goes only to the endpoint, in a header: images are on other
hosts, and their addresses have signatures of their own. The key is never part of a message.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import httpx

from ocelli_client.connection import check_address, sends_clear_text
from ocelli_client.errors import OcelliError
from ocelli_import.downloads import ATTEMPTS, TIMEOUT_SECONDS, USER_AGENT, Fetcher, pause_seconds

API_VERSION = "v3.3"
PAGE_SIZE = 256
"""The most images of one answer."""
OBJECT_DETECTION = "ObjectDetection"
NEGATIVE = "Negative"
_TRY_AGAIN = frozenset({429, 500, 502, 503, 504})
T = TypeVar("T")


class CustomVisionError(OcelliError):
    """The training API refused a request, did not answer, or answered something else."""


class TrainingKey(httpx.Auth):
    """The key of a training resource, as the header of a request. Neither `repr` nor a traceback shows it."""

    def __init__(self, key: str) -> None:
        """Raises CustomVisionError if it cannot be a key."""
        key = key.strip()
        # An HTTP library would quote a header that it refuses.
        if not key or not key.isascii() or not key.isalnum():
            raise CustomVisionError("The training key has other characters than letters and digits; copy it again")
        self.__key = key

    def auth_flow(self, request: httpx.Request) -> Iterator[httpx.Request]:  # type: ignore[override]
        request.headers["Training-Key"] = self.__key
        yield request

    def __repr__(self) -> str:
        return "TrainingKey(…)"


@dataclass(frozen=True, kw_only=True)
class Project:
    """A project."""

    project_id: str
    name: str
    domain_id: str
    multilabel: bool


@dataclass(frozen=True, kw_only=True)
class Tag:
    """A tag, and the number of its images as the service counts them."""

    tag_id: str
    name: str
    negative: bool
    image_count: int


@dataclass(frozen=True, kw_only=True)
class TaggedImage:
    """An image with its tags."""

    image_id: str
    uri: str
    """Of the original file. Not an address but a path of `TrainingApi.artifact`, where the resource is in a virtual network."""
    tag_ids: tuple[str, ...]
    has_regions: bool


class TrainingApi:
    """The training API of one resource."""

    def __init__(self, endpoint: str, key: TrainingKey, *, sleep: Callable[[float], None] = time.sleep) -> None:
        """`endpoint` is that of the training resource, such as `https://NAME.cognitiveservices.azure.com`.

        Raises:
            CustomVisionError: it is not an address, or not one that keeps the key secret.
        """
        try:
            check_address(endpoint)
        except OcelliError as error:
            raise CustomVisionError(f"The endpoint of Custom Vision cannot be used. {error}") from error
        if sends_clear_text(endpoint):
            raise CustomVisionError(f"{endpoint} would send the training key in clear text; use its https address")
        self.endpoint = endpoint.rstrip("/")
        self._sleep = sleep
        self._client = httpx.Client(
            base_url=f"{self.endpoint}/customvision/{API_VERSION}/training",
            auth=key,
            timeout=TIMEOUT_SECONDS,
            headers={"Accept": "application/json", "User-Agent": USER_AGENT},
        )

    def __enter__(self) -> TrainingApi:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def find_project(self, name_or_id: str) -> Project:
        """The project with this id or name.

        Raises:
            CustomVisionError: there is none, or several have the name.
        """
        projects = self._list("/projects", _parse_project)
        found = [one for one in projects if one.project_id == name_or_id.lower()]
        found = found or [one for one in projects if one.name == name_or_id]
        if len(found) == 1:
            return found[0]
        if found:
            ids = ", ".join(one.project_id for one in found)
            raise CustomVisionError(f'Several projects are named "{name_or_id}"; give the id of one of them: {ids}')
        names = ", ".join(f'"{one.name}"' for one in projects) or "none"
        raise CustomVisionError(f'{self.endpoint} has no project "{name_or_id}"; its projects: {names}')

    def domain_type(self, domain_id: str) -> str:
        """`Classification` or `ObjectDetection`."""
        answer = self._get(f"/domains/{domain_id}", {})
        if not isinstance(answer, dict):
            raise self._unexpected("/domains")
        return str(answer.get("type", ""))

    def tags(self, project: Project) -> tuple[Tag, ...]:
        """All tags of a project."""
        return tuple(self._list(f"/projects/{project.project_id}/tags", _parse_tag))

    def tagged_images(self, project: Project) -> Iterator[TaggedImage]:
        """All tagged images of a project, page by page; oldest first, so that one that is added meanwhile moves no other."""
        skip = 0
        while True:
            query: dict[str, str | int] = {"orderBy": "Oldest", "take": PAGE_SIZE, "skip": skip}
            page = self._list(f"/projects/{project.project_id}/images/tagged", _parse_image, query)
            yield from page
            if len(page) < PAGE_SIZE:
                return
            skip += PAGE_SIZE

    def tagged_count(self, project: Project) -> int:
        return self._count(f"/projects/{project.project_id}/images/tagged/count")

    def untagged_count(self, project: Project) -> int:
        return self._count(f"/projects/{project.project_id}/images/untagged/count")

    def artifact(self, project: Project, path: str) -> bytes:
        """A file of a resource in a virtual network.

        Raises:
            DownloadError: it is not received.
        """
        url = httpx.URL(f"{self._client.base_url}projects/{project.project_id}/artifacts", params={"path": path})
        return Fetcher(client=self._client, sleep=self._sleep).get(str(url))

    def _list(
        self, path: str, parse: Callable[[Mapping[str, Any]], T], query: Mapping[str, str | int] | None = None
    ) -> list[T]:
        answer = self._get(path, query or {})
        try:
            if isinstance(answer, list):
                return [parse(item) for item in answer]
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise self._unexpected(path) from error
        raise self._unexpected(path)

    def _count(self, path: str) -> int:
        answer = self._get(path, {})
        if not isinstance(answer, int):
            raise self._unexpected(path)
        return answer

    def _get(self, path: str, query: Mapping[str, str | int]) -> Any:
        for attempt in range(ATTEMPTS):
            try:
                response = self._client.get(path, params=query)
            except httpx.HTTPError as error:
                failure = CustomVisionError(
                    f"{self.endpoint} is not reachable ({error or type(error).__name__}); check the endpoint"
                )
                pause = pause_seconds(None, attempt)
            else:
                if response.status_code == httpx.codes.OK:
                    return self._parse(response, path)
                failure = self._refusal(response)
                if response.status_code not in _TRY_AGAIN:
                    raise failure
                pause = pause_seconds(response, attempt)
            if attempt + 1 < ATTEMPTS:
                self._sleep(pause)
        raise failure

    def _parse(self, response: httpx.Response, path: str) -> Any:
        try:
            return response.json()
        except ValueError as error:
            raise self._unexpected(path) from error

    def _refusal(self, response: httpx.Response) -> CustomVisionError:
        if response.status_code in (401, 403):
            return CustomVisionError(
                f"{self.endpoint} does not accept the training key; take key and endpoint of the training resource (not of the"
                " prediction resource) from the project's settings"
            )
        return CustomVisionError(f"{self.endpoint} answered {response.status_code}{_describe(response)}")

    def _unexpected(self, path: str) -> CustomVisionError:
        return CustomVisionError(
            f"{self.endpoint} did not answer {path} as Custom Vision {API_VERSION} does; check the endpoint"
        )


def _describe(response: httpx.Response) -> str:
    try:
        body = response.json()
        return f": {body['message']} ({body['code']})"
    except (ValueError, KeyError, TypeError):
        return ""


def _parse_project(item: Mapping[str, Any]) -> Project:
    settings = item.get("settings") or {}
    return Project(
        project_id=str(item["id"]).lower(),
        name=str(item["name"]),
        domain_id=str(settings.get("domainId", "")),
        multilabel=settings.get("classificationType") == "Multilabel",
    )


def _parse_tag(item: Mapping[str, Any]) -> Tag:
    return Tag(
        tag_id=str(item["id"]),
        name=str(item["name"]),
        negative=item.get("type") == NEGATIVE,
        image_count=int(item.get("imageCount") or 0),
    )


def _parse_image(item: Mapping[str, Any]) -> TaggedImage:
    return TaggedImage(
        image_id=str(item["id"]),
        uri=str(item.get("originalImageUri") or ""),
        tag_ids=tuple(str(tag["tagId"]) for tag in item.get("tags") or ()),
        has_regions=bool(item.get("regions")),
    )
