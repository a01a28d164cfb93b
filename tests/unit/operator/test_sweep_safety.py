"""What keeps the sweep from deleting what somebody still needs: nothing brings it back."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from ocelli_cluster.client import ForbiddenError
from ocelli_cluster.resources import ObjectKey

from ocelli_operator.orphan_ages import PLACES_LIMIT, OrphanAges
from ocelli_operator.sweep import (
    ALLOWANCE_OBJECTS,
    OtherInstallationError,
    ResourceGoneError,
    StopReason,
    StoreSweep,
    SweepReport,
    SweepSettings,
)
from ocelli_storage.layout import ARTIFACT_METADATA, ClassifierLocation, orphans_key, owner_key
from ocelli_storage.object_store import ObjectStore, StoreUnavailableError
from tests.unit.operator.classifier_cluster import ClassifierCluster, make_manifest

pytestmark = pytest.mark.anyio

HOUR = timedelta(hours=1)
REVISION = "0123456789"
DOGS = ClassifierLocation(namespace="team-a", classifier_id="dogs_1")
CATS = ClassifierLocation(namespace="team-a", classifier_id="cats_1")
SERVED = {"servedRevision": REVISION, "history": [{"revision": REVISION, "trainedAt": "2026-05-04T11:30:00Z"}]}


class Installation:
    """An operator with its sweep, and the hours that pass."""

    def __init__(self, store: ObjectStore, cluster: ClassifierCluster, identity: str = "uid-1", **settings: Any) -> None:
        values = {"namespaces": (), "minimum_age": HOUR, "limit_percent": 100, "adopted_installation": "", **settings}
        self._settings = SweepSettings(**values)
        self._store = store
        self._cluster = cluster
        self._identity = identity
        self.now = datetime.now(UTC) + 2 * HOUR
        """Whatever a test stores is old by then."""
        self.start()

    def start(self, **settings: Any) -> None:
        """Another operator begins to lead."""
        self._settings = replace(self._settings, **settings)

        async def identify() -> str:
            return self._identity

        self.operator = StoreSweep(self._cluster, self._store, self._settings, identify)  # type: ignore[arg-type]

    async def sweep(self, *, after: timedelta = timedelta(0)) -> SweepReport:
        self.now += after
        return await self.operator.sweep(self.now)

    async def sweep_twice(self) -> SweepReport:
        """The second time everything unused is old enough."""
        await self.sweep()
        return await self.sweep(after=HOUR)


async def stored(store: ObjectStore) -> set[str]:
    return {item.key for item in await store.list_objects("tenants")}


async def fill(store: ObjectStore, *keys: str) -> set[str]:
    for key in keys:
        await store.put(key, b"stored")
    return set(keys)


def artifact(location: ClassifierLocation, revision: str = REVISION) -> str:
    return location.artifact_key(revision, ARTIFACT_METADATA)


async def test_old_bytes_of_a_missing_classifier_are_spared_until_they_were_seen_unused_for_an_hour(store: ObjectStore) -> None:
    kept = await fill(store, artifact(DOGS))
    installation = Installation(store, ClassifierCluster(make_manifest("cats")))
    await installation.sweep()
    await installation.sweep(after=HOUR - timedelta(minutes=1))
    assert await stored(store) == kept
    await installation.sweep(after=timedelta(minutes=1))
    assert await stored(store) == set()


async def test_a_successor_knows_since_when_something_is_unused(store: ObjectStore) -> None:
    await fill(store, artifact(DOGS))
    installation = Installation(store, ClassifierCluster(make_manifest("cats")))
    await installation.sweep()
    installation.start()
    await installation.sweep(after=HOUR)
    assert await stored(store) == set()


async def test_what_was_in_use_again_meanwhile_is_spared_for_another_hour(store: ObjectStore) -> None:
    kept = await fill(store, artifact(DOGS))
    cluster = ClassifierCluster(make_manifest("cats"))
    installation = Installation(store, cluster)
    await installation.sweep()
    cluster.manifests.append(make_manifest("dogs", status=SERVED))
    await installation.sweep(after=HOUR)
    cluster.manifests.pop()
    await installation.sweep(after=HOUR)
    assert await stored(store) == kept


async def test_of_an_installation_built_anew_nothing_is_lost_when_the_classifiers_come_late(store: ObjectStore) -> None:
    kept = await fill(store, artifact(DOGS), DOGS.upload_key("a" * 64))
    cluster = ClassifierCluster()
    installation = Installation(store, cluster)
    await installation.sweep()
    cluster.manifests.append(make_manifest("dogs", status=SERVED, spec={"negativeExamples": [{"upload": "a" * 64}]}))
    await installation.sweep(after=HOUR)
    assert await stored(store) == kept


async def test_notes_that_cannot_be_read_delay_the_sweep_and_nothing_else(store: ObjectStore) -> None:
    await fill(store, artifact(DOGS))
    installation = Installation(store, ClassifierCluster(make_manifest("cats")))
    await installation.sweep()
    await store.put(orphans_key("uid-1"), b"no notes")
    assert (await installation.sweep(after=HOUR)).deleted == 0
    assert (await installation.sweep(after=HOUR)).deleted == 1


class FullStore:
    """A store that has no room for anything new."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def put(self, key: str, data: object) -> None:
        raise StoreUnavailableError(f"object store: could not write {key!r}: it is full")


async def test_a_full_store_is_swept(store: ObjectStore) -> None:
    await fill(store, artifact(DOGS))
    full: Any = FullStore(store)
    await Installation(full, ClassifierCluster(make_manifest("cats"))).sweep_twice()
    assert await stored(store) == set()


async def test_the_notes_have_a_bound(store: ObjectStore) -> None:
    places = [f"tenants/ns/artifacts/dogs_{number}/r" for number in range(PLACES_LIMIT + 1)]
    noted = await OrphanAges(store).note("uid-1", places, datetime.now(UTC))
    assert len(noted) == PLACES_LIMIT


class TestOwner:
    async def test_another_installation_sweeps_nothing(self, store: ObjectStore) -> None:
        kept = await fill(store, artifact(DOGS))
        await Installation(store, ClassifierCluster(make_manifest("dogs", status=SERVED)), "uid-1").sweep()
        report = await Installation(store, ClassifierCluster(make_manifest("cats")), "uid-2").sweep_twice()
        assert report.stopped is StopReason.OTHER_INSTALLATION
        assert await stored(store) == kept

    async def test_it_is_told_whose_the_store_is_and_what_to_set(self, store: ObjectStore) -> None:
        await Installation(store, ClassifierCluster(), "uid-1").sweep()
        report = await Installation(store, ClassifierCluster(), "uid-2").sweep()
        assert "belongs to the installation uid-1, and this one, uid-2, does not sweep it" in report.message
        assert "OCELLI_ADOPT_STORE (in the chart: store.adopt) to uid-1" in report.message

    async def test_an_adopted_store_is_swept_after_an_hour(self, store: ObjectStore) -> None:
        await fill(store, artifact(DOGS))
        await Installation(store, ClassifierCluster(), "uid-1").sweep()
        installation = Installation(store, ClassifierCluster(make_manifest("cats")), "uid-2", adopted_installation="uid-1")
        assert (await installation.sweep()).deleted == 0
        assert (await installation.sweep(after=HOUR)).deleted == 1

    async def test_it_is_adopted_once_and_for_all(self, store: ObjectStore) -> None:
        await Installation(store, ClassifierCluster(), "uid-1").sweep()
        installation = Installation(store, ClassifierCluster(), "uid-2", adopted_installation="uid-1")
        await installation.sweep()
        installation.start(adopted_installation="")
        assert (await installation.sweep()).stopped is None

    async def test_the_installation_whose_store_was_adopted_sweeps_no_more(self, store: ObjectStore) -> None:
        first = Installation(store, ClassifierCluster(), "uid-1")
        await first.sweep()
        await Installation(store, ClassifierCluster(), "uid-2", adopted_installation="uid-1").sweep()
        assert (await first.sweep()).stopped is StopReason.OTHER_INSTALLATION

    async def test_to_adopt_one_installation_is_not_to_adopt_another(self, store: ObjectStore) -> None:
        await Installation(store, ClassifierCluster(), "uid-1").sweep()
        report = await Installation(store, ClassifierCluster(), "uid-3", adopted_installation="uid-2").sweep()
        assert report.stopped is StopReason.OTHER_INSTALLATION

    async def test_a_store_whose_owner_cannot_be_read_is_not_swept(self, store: ObjectStore) -> None:
        await store.put(owner_key(), b"{")
        assert (await Installation(store, ClassifierCluster()).sweep()).stopped is StopReason.OTHER_INSTALLATION


def other(namespace: str, name: str = "dogs") -> ClassifierLocation:
    return ClassifierLocation(namespace=namespace, classifier_id=f"{name}_1")


class TestShare:
    """A namespace is not swept where Classifiers of it may be missing."""

    @pytest.fixture
    async def used(self, store: ObjectStore) -> set[str]:
        """Objects of `team-a`, to which `TEAM_A` refers."""
        return await fill(store, artifact(DOGS), *(DOGS.artifact_key(REVISION, f"{number}") for number in range(79)))

    TEAM_A = make_manifest("dogs", status=SERVED)

    async def sweep(self, store: ObjectStore, *manifests: Any, limit_percent: int = 25) -> SweepReport:
        return await Installation(store, ClassifierCluster(*manifests), limit_percent=limit_percent).sweep_twice()

    async def test_of_missing_classifiers_nothing_goes_where_they_are_most_of_their_namespace(self, store: ObjectStore) -> None:
        kept = await fill(store, artifact(CATS))
        report = await self.sweep(store, make_manifest("dogs"))
        assert report.stopped is StopReason.SHARE_EXCEEDED
        assert await stored(store) == kept

    async def test_a_deleted_classifier_that_is_a_small_share_of_its_namespace_goes(
        self, store: ObjectStore, used: set[str]
    ) -> None:
        await fill(store, *(artifact(CATS, f"{number}") for number in range(20)))
        assert (await self.sweep(store, self.TEAM_A)).deleted == 20
        assert await stored(store) == used

    async def test_a_namespace_without_classifiers_keeps_its_bytes_though_they_are_a_small_share_of_the_store(
        self, store: ObjectStore, used: set[str]
    ) -> None:
        kept = await fill(store, artifact(other("team-b")))
        report = await self.sweep(store, self.TEAM_A)
        assert report.stopped_namespaces == ("team-b",)
        assert await stored(store) == used | kept

    async def test_the_others_are_swept(self, store: ObjectStore, used: set[str]) -> None:
        kept = await fill(store, artifact(other("team-b")))
        await fill(store, artifact(CATS))
        report = await self.sweep(store, self.TEAM_A)
        assert report.deleted == 1
        assert await stored(store) == used | kept

    async def test_it_is_told_which_namespaces_are_not_swept_and_what_to_do(self, store: ObjectStore) -> None:
        await fill(store, *(artifact(other(f"team-{team}")) for team in "bcdefg"))
        report = await self.sweep(store)
        assert "team-b (1 of 1 objects), team-c (1 of 1 objects)" in report.message
        assert "team-f (1 of 1 objects), 1 more; if Classifiers are missing, create or restore them" in report.message

    async def test_nobody_is_told_before_anything_would_go(self, store: ObjectStore) -> None:
        await fill(store, artifact(CATS))
        assert (await Installation(store, ClassifierCluster(), limit_percent=25).sweep()).stopped is None

    @pytest.mark.parametrize(("count", "deleted"), [(ALLOWANCE_OBJECTS, ALLOWANCE_OBJECTS), (ALLOWANCE_OBJECTS + 1, 0)])
    async def test_of_a_living_classifier_a_few_objects_go_though_they_are_most_of_a_small_namespace(
        self, store: ObjectStore, count: int, deleted: int
    ) -> None:
        await fill(store, *(artifact(DOGS, f"{number}") for number in range(count)))
        assert (await self.sweep(store, make_manifest("dogs"))).deleted == deleted

    async def test_everything_goes_where_a_person_says_so(self, store: ObjectStore) -> None:
        await fill(store, artifact(CATS))
        assert (await self.sweep(store, limit_percent=100)).deleted == 1


class TestLastLook:
    async def test_a_revision_that_is_pinned_after_the_listing_stays(self, store: ObjectStore) -> None:
        kept = await fill(store, artifact(DOGS))
        cluster = ClassifierCluster(make_manifest("dogs"))
        installation = Installation(store, cluster)
        await installation.sweep()
        pinned = make_manifest("dogs", version=2, spec={"pinnedRevision": REVISION})
        cluster.after_list = lambda: cluster.manifests.__setitem__(0, pinned)
        await installation.sweep(after=HOUR)
        assert await stored(store) == kept

    async def test_a_classifier_that_is_restored_after_the_listing_keeps_its_bytes(self, store: ObjectStore) -> None:
        kept = await fill(store, artifact(DOGS))
        cluster = ClassifierCluster(make_manifest("cats"))
        installation = Installation(store, cluster)
        await installation.sweep()
        cluster.after_list = lambda: cluster.manifests.append(make_manifest("dogs", status=SERVED))
        await installation.sweep(after=HOUR)
        assert await stored(store) == kept

    async def test_what_a_changed_classifier_still_does_not_refer_to_goes(self, store: ObjectStore) -> None:
        await fill(store, artifact(DOGS))
        cluster = ClassifierCluster(make_manifest("dogs"))
        installation = Installation(store, cluster)
        await installation.sweep()
        cluster.after_list = lambda: cluster.manifests.__setitem__(0, make_manifest("dogs", version=2))
        assert (await installation.sweep(after=HOUR)).deleted == 1


async def test_a_second_object_with_an_id_does_not_give_up_what_the_first_refers_to(store: ObjectStore) -> None:
    kept = await fill(store, artifact(DOGS))
    copied = make_manifest("copied", classifier_id="dogs_1")
    await Installation(store, ClassifierCluster(make_manifest("dogs", status=SERVED), copied)).sweep_twice()
    assert await stored(store) == kept


UNREADABLE = {"spec": {"dataRetention": "Archive"}}


class TestUnreadable:
    async def test_all_that_is_stored_for_an_object_that_cannot_be_read_stays(self, store: ObjectStore) -> None:
        kept = await fill(store, artifact(DOGS), DOGS.upload_key("a" * 64), DOGS.training_key("r", 1, "outcome.json"))
        await Installation(store, ClassifierCluster(make_manifest("dogs", **UNREADABLE))).sweep_twice()
        assert await stored(store) == kept

    async def test_waste_of_others_goes_though_an_object_cannot_be_read(self, store: ObjectStore) -> None:
        await fill(store, artifact(CATS))
        cluster = ClassifierCluster(make_manifest("dogs", **UNREADABLE), make_manifest("cats"))
        assert (await Installation(store, cluster).sweep_twice()).deleted == 1

    async def test_a_deleted_classifier_leaves_nothing_though_another_cannot_be_read(self, store: ObjectStore) -> None:
        await fill(store, artifact(CATS))
        installation = Installation(store, ClassifierCluster(make_manifest("dogs", **UNREADABLE)))
        await installation.operator.delete_classifier(("team-a", "cats_1"))
        assert await stored(store) == set()

    async def test_one_that_cannot_be_read_keeps_what_a_deleted_one_of_its_id_leaves(self, store: ObjectStore) -> None:
        kept = await fill(store, artifact(DOGS))
        installation = Installation(store, ClassifierCluster(make_manifest("again", classifier_id="dogs_1", **UNREADABLE)))
        await installation.operator.delete_classifier(("team-a", "dogs_1"))
        assert await stored(store) == kept


class TestClosedNamespaces:
    async def test_a_namespace_that_may_not_be_read_keeps_its_bytes_and_others_are_swept(self, store: ObjectStore) -> None:
        closed = ClassifierLocation(namespace="team-b", classifier_id="birds_1")
        kept = await fill(store, artifact(closed))
        await fill(store, artifact(CATS))
        cluster = ClassifierCluster(make_manifest("dogs"))
        cluster.forbidden = {"team-b"}
        await Installation(store, cluster, namespaces=("team-a", "team-b")).sweep_twice()
        assert await stored(store) == kept

    async def test_where_no_namespace_may_be_read_nothing_is_swept(self, store: ObjectStore) -> None:
        cluster = ClassifierCluster()
        cluster.forbidden = {"team-a", "team-b"}
        with pytest.raises(ForbiddenError):
            await Installation(store, cluster, namespaces=("team-a", "team-b")).sweep()


class TestDeletions:
    async def test_bytes_of_a_deleted_classifier_go_though_the_sweep_is_stopped(self, store: ObjectStore) -> None:
        kept = await fill(store, *(artifact(CATS, f"{number}") for number in range(ALLOWANCE_OBJECTS + 1)))
        await fill(store, artifact(DOGS))
        installation = Installation(store, ClassifierCluster(), limit_percent=25)
        assert (await installation.sweep_twice()).stopped is StopReason.SHARE_EXCEEDED
        await installation.operator.delete_classifier(("team-a", "dogs_1"))
        assert await stored(store) == kept

    async def test_of_a_store_of_another_installation_nothing_goes(self, store: ObjectStore) -> None:
        await Installation(store, ClassifierCluster(), "uid-1").sweep()
        kept = await fill(store, artifact(DOGS))
        installation = Installation(store, ClassifierCluster(), "uid-2")
        with pytest.raises(OtherInstallationError):
            await installation.operator.delete_classifier(("team-a", "dogs_1"))
        assert await stored(store) == kept

    async def test_nothing_goes_where_the_resource_itself_is_deleted(self, store: ObjectStore) -> None:
        kept = await fill(store, artifact(DOGS))
        cluster = ClassifierCluster()
        cluster.accepting = [False]
        with pytest.raises(ResourceGoneError):
            await Installation(store, cluster).operator.delete_classifier(("team-a", "dogs_1"))
        assert await stored(store) == kept


class TestLostArtifacts:
    @pytest.mark.parametrize("identity", ["uid-1", "uid-2"], ids=["owner", "another installation"])
    async def test_a_served_artifact_that_has_vanished_is_reported(self, store: ObjectStore, identity: str) -> None:
        await Installation(store, ClassifierCluster(), "uid-1").sweep()
        report = await Installation(store, ClassifierCluster(make_manifest("dogs", status=SERVED)), identity).sweep()
        assert report.lost_artifacts == {ObjectKey("team-a", "dogs"): REVISION}

    async def test_one_that_is_there_is_not(self, store: ObjectStore) -> None:
        await fill(store, artifact(DOGS))
        report = await Installation(store, ClassifierCluster(make_manifest("dogs", status=SERVED))).sweep()
        assert report.lost_artifacts == {}

    async def test_one_that_was_stored_after_the_listing_is_not(self, store: ObjectStore) -> None:
        cluster = ClassifierCluster(make_manifest("dogs", status=SERVED))
        folder = Path(store.url.removeprefix("file://")) / artifact(DOGS)

        def write() -> None:
            folder.parent.mkdir(parents=True)
            folder.write_text("{}")

        cluster.after_list = write
        assert (await Installation(store, cluster).sweep()).lost_artifacts == {}
