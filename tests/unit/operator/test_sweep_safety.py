"""The sweep deletes nothing that may still be needed, because it cannot be restored."""

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


class SweptInstallation:
    """An operator with its sweep and its own clock."""

    def __init__(self, store: ObjectStore, cluster: ClassifierCluster, identity: str = "uid-1", **settings: Any) -> None:
        values = {"namespaces": (), "minimum_age": HOUR, "limit_percent": 100, "adopted_installation": "", **settings}
        self._settings = SweepSettings(**values)
        self._store = store
        self._cluster = cluster
        self._identity = identity
        self.now = datetime.now(UTC) + 2 * HOUR
        """Everything that a test stores is old at this time."""
        self.start()

    def start(self, **settings: Any) -> None:
        """Another operator starts to lead."""
        self._settings = replace(self._settings, **settings)

        async def identify() -> str:
            return self._identity

        self.operator = StoreSweep(self._cluster, self._store, self._settings, identify)  # type: ignore[arg-type]

    async def sweep(self, *, after: timedelta = timedelta(0)) -> SweepReport:
        self.now += after
        return await self.operator.sweep(self.now)

    async def sweep_twice(self) -> SweepReport:
        """By the second sweep all orphans are old enough."""
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


async def test_old_data_of_an_absent_classifier_is_kept_until_it_was_an_orphan_for_an_hour(store: ObjectStore) -> None:
    kept = await fill(store, artifact(DOGS))
    installation = SweptInstallation(store, ClassifierCluster(make_manifest("cats")))
    await installation.sweep()
    await installation.sweep(after=HOUR - timedelta(minutes=1))
    assert await stored(store) == kept
    await installation.sweep(after=timedelta(minutes=1))
    assert await stored(store) == set()


async def test_a_new_leader_knows_since_when_an_object_is_an_orphan(store: ObjectStore) -> None:
    await fill(store, artifact(DOGS))
    installation = SweptInstallation(store, ClassifierCluster(make_manifest("cats")))
    await installation.sweep()
    installation.start()
    await installation.sweep(after=HOUR)
    assert await stored(store) == set()


async def test_an_orphan_that_was_in_use_meanwhile_is_kept_for_another_hour(store: ObjectStore) -> None:
    kept = await fill(store, artifact(DOGS))
    cluster = ClassifierCluster(make_manifest("cats"))
    installation = SweptInstallation(store, cluster)
    await installation.sweep()
    cluster.manifests.append(make_manifest("dogs", status=SERVED))
    await installation.sweep(after=HOUR)
    cluster.manifests.pop()
    await installation.sweep(after=HOUR)
    assert await stored(store) == kept


async def test_a_rebuilt_cluster_loses_nothing_if_its_classifiers_are_restored_late(store: ObjectStore) -> None:
    kept = await fill(store, artifact(DOGS), DOGS.upload_key("a" * 64))
    cluster = ClassifierCluster()
    installation = SweptInstallation(store, cluster)
    await installation.sweep()
    cluster.manifests.append(make_manifest("dogs", status=SERVED, spec={"negativeExamples": [{"upload": "a" * 64}]}))
    await installation.sweep(after=HOUR)
    assert await stored(store) == kept


async def test_unreadable_ages_only_delay_the_sweep(store: ObjectStore) -> None:
    await fill(store, artifact(DOGS))
    installation = SweptInstallation(store, ClassifierCluster(make_manifest("cats")))
    await installation.sweep()
    await store.put(orphans_key("uid-1"), b"not JSON")
    assert (await installation.sweep(after=HOUR)).deleted == 0
    assert (await installation.sweep(after=HOUR)).deleted == 1


class FullStore:
    """A store that rejects every write."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def put(self, key: str, data: object) -> None:
        raise StoreUnavailableError(f"object store: could not write {key!r}: it is full")


async def test_a_full_store_is_swept(store: ObjectStore) -> None:
    await fill(store, artifact(DOGS))
    full: Any = FullStore(store)
    await SweptInstallation(full, ClassifierCluster(make_manifest("cats"))).sweep_twice()
    assert await stored(store) == set()


async def test_the_number_of_recorded_ages_is_limited(store: ObjectStore) -> None:
    places = [f"tenants/ns/artifacts/dogs_{number}/r" for number in range(PLACES_LIMIT + 1)]
    recorded = await OrphanAges(store).note("uid-1", places, datetime.now(UTC))
    assert len(recorded) == PLACES_LIMIT


class TestOwner:
    async def test_another_installation_sweeps_nothing(self, store: ObjectStore) -> None:
        kept = await fill(store, artifact(DOGS))
        await SweptInstallation(store, ClassifierCluster(make_manifest("dogs", status=SERVED)), "uid-1").sweep()
        report = await SweptInstallation(store, ClassifierCluster(make_manifest("cats")), "uid-2").sweep_twice()
        assert report.stopped is StopReason.OTHER_INSTALLATION
        assert await stored(store) == kept

    async def test_the_message_names_the_owner_and_the_setting(self, store: ObjectStore) -> None:
        await SweptInstallation(store, ClassifierCluster(), "uid-1").sweep()
        report = await SweptInstallation(store, ClassifierCluster(), "uid-2").sweep()
        assert "belongs to the installation uid-1, so this one, uid-2, does not sweep it" in report.message
        assert "OCELLI_ADOPT_STORE (in the chart: store.adopt) to uid-1" in report.message

    async def test_an_adopted_store_is_swept_after_an_hour(self, store: ObjectStore) -> None:
        await fill(store, artifact(DOGS))
        await SweptInstallation(store, ClassifierCluster(), "uid-1").sweep()
        installation = SweptInstallation(store, ClassifierCluster(make_manifest("cats")), "uid-2", adopted_installation="uid-1")
        assert (await installation.sweep()).deleted == 0
        assert (await installation.sweep(after=HOUR)).deleted == 1

    async def test_a_store_stays_adopted_without_the_setting(self, store: ObjectStore) -> None:
        await SweptInstallation(store, ClassifierCluster(), "uid-1").sweep()
        installation = SweptInstallation(store, ClassifierCluster(), "uid-2", adopted_installation="uid-1")
        await installation.sweep()
        installation.start(adopted_installation="")
        assert (await installation.sweep()).stopped is None

    async def test_the_former_owner_no_longer_sweeps_an_adopted_store(self, store: ObjectStore) -> None:
        first = SweptInstallation(store, ClassifierCluster(), "uid-1")
        await first.sweep()
        await SweptInstallation(store, ClassifierCluster(), "uid-2", adopted_installation="uid-1").sweep()
        assert (await first.sweep()).stopped is StopReason.OTHER_INSTALLATION

    async def test_adopting_one_installation_does_not_adopt_another(self, store: ObjectStore) -> None:
        await SweptInstallation(store, ClassifierCluster(), "uid-1").sweep()
        report = await SweptInstallation(store, ClassifierCluster(), "uid-3", adopted_installation="uid-2").sweep()
        assert report.stopped is StopReason.OTHER_INSTALLATION

    async def test_a_store_with_an_unreadable_owner_is_not_swept(self, store: ObjectStore) -> None:
        await store.put(owner_key(), b"{")
        assert (await SweptInstallation(store, ClassifierCluster()).sweep()).stopped is StopReason.OTHER_INSTALLATION


def other(namespace: str, name: str = "dogs") -> ClassifierLocation:
    return ClassifierLocation(namespace=namespace, classifier_id=f"{name}_1")


class TestShare:
    """A namespace is not swept if its Classifiers may be missing."""

    @pytest.fixture
    async def used(self, store: ObjectStore) -> set[str]:
        """Objects of `team-a`, to which `TEAM_A` refers."""
        return await fill(store, artifact(DOGS), *(DOGS.artifact_key(REVISION, f"{number}") for number in range(79)))

    TEAM_A = make_manifest("dogs", status=SERVED)

    async def sweep(self, store: ObjectStore, *manifests: Any, limit_percent: int = 25) -> SweepReport:
        return await SweptInstallation(store, ClassifierCluster(*manifests), limit_percent=limit_percent).sweep_twice()

    async def test_absent_classifiers_with_a_large_share_of_a_namespace_are_kept(self, store: ObjectStore) -> None:
        kept = await fill(store, artifact(CATS))
        report = await self.sweep(store, make_manifest("dogs"))
        assert report.stopped is StopReason.SHARE_EXCEEDED
        assert await stored(store) == kept

    async def test_a_deleted_classifier_with_a_small_share_of_its_namespace_is_swept(
        self, store: ObjectStore, used: set[str]
    ) -> None:
        await fill(store, *(artifact(CATS, f"{number}") for number in range(20)))
        assert (await self.sweep(store, self.TEAM_A)).deleted == 20
        assert await stored(store) == used

    async def test_a_namespace_without_classifiers_is_kept_with_any_share_of_the_store(
        self, store: ObjectStore, used: set[str]
    ) -> None:
        kept = await fill(store, artifact(other("team-b")))
        report = await self.sweep(store, self.TEAM_A)
        assert report.stopped_namespaces == ("team-b",)
        assert await stored(store) == used | kept

    async def test_other_namespaces_are_swept(self, store: ObjectStore, used: set[str]) -> None:
        kept = await fill(store, artifact(other("team-b")))
        await fill(store, artifact(CATS))
        report = await self.sweep(store, self.TEAM_A)
        assert report.deleted == 1
        assert await stored(store) == used | kept

    async def test_the_message_names_the_namespaces_and_the_remedy(self, store: ObjectStore) -> None:
        await fill(store, *(artifact(other(f"team-{team}")) for team in "bcdefg"))
        report = await self.sweep(store)
        assert "team-b (1 of 1 objects), team-c (1 of 1 objects)" in report.message
        assert "team-f (1 of 1 objects), 1 more; if Classifiers are missing, create or restore them" in report.message

    async def test_nothing_is_reported_before_an_orphan_is_due(self, store: ObjectStore) -> None:
        await fill(store, artifact(CATS))
        assert (await SweptInstallation(store, ClassifierCluster(), limit_percent=25).sweep()).stopped is None

    @pytest.mark.parametrize(("count", "deleted"), [(ALLOWANCE_OBJECTS, ALLOWANCE_OBJECTS), (ALLOWANCE_OBJECTS + 1, 0)])
    async def test_a_few_orphans_of_an_existing_classifier_are_swept_with_any_share(
        self, store: ObjectStore, count: int, deleted: int
    ) -> None:
        await fill(store, *(artifact(DOGS, f"{number}") for number in range(count)))
        assert (await self.sweep(store, make_manifest("dogs"))).deleted == deleted

    async def test_everything_is_swept_with_a_limit_of_100_percent(self, store: ObjectStore) -> None:
        await fill(store, artifact(CATS))
        assert (await self.sweep(store, limit_percent=100)).deleted == 1


class TestFinalCheck:
    async def test_a_revision_that_is_pinned_after_the_list_is_kept(self, store: ObjectStore) -> None:
        kept = await fill(store, artifact(DOGS))
        cluster = ClassifierCluster(make_manifest("dogs"))
        installation = SweptInstallation(store, cluster)
        await installation.sweep()
        pinned = make_manifest("dogs", version=2, spec={"pinnedRevision": REVISION})
        cluster.after_list = lambda: cluster.manifests.__setitem__(0, pinned)
        await installation.sweep(after=HOUR)
        assert await stored(store) == kept

    async def test_a_classifier_that_is_restored_after_the_list_keeps_its_data(self, store: ObjectStore) -> None:
        kept = await fill(store, artifact(DOGS))
        cluster = ClassifierCluster(make_manifest("cats"))
        installation = SweptInstallation(store, cluster)
        await installation.sweep()
        cluster.after_list = lambda: cluster.manifests.append(make_manifest("dogs", status=SERVED))
        await installation.sweep(after=HOUR)
        assert await stored(store) == kept

    async def test_orphans_of_a_classifier_that_changed_otherwise_are_swept(self, store: ObjectStore) -> None:
        await fill(store, artifact(DOGS))
        cluster = ClassifierCluster(make_manifest("dogs"))
        installation = SweptInstallation(store, cluster)
        await installation.sweep()
        cluster.after_list = lambda: cluster.manifests.__setitem__(0, make_manifest("dogs", version=2))
        assert (await installation.sweep(after=HOUR)).deleted == 1


async def test_two_objects_with_one_id_keep_what_either_of_them_refers_to(store: ObjectStore) -> None:
    kept = await fill(store, artifact(DOGS))
    copied = make_manifest("copied", classifier_id="dogs_1")
    await SweptInstallation(store, ClassifierCluster(make_manifest("dogs", status=SERVED), copied)).sweep_twice()
    assert await stored(store) == kept


UNREADABLE = {"spec": {"dataRetention": "Archive"}}


class TestUnreadable:
    async def test_all_data_of_an_unreadable_object_is_kept(self, store: ObjectStore) -> None:
        kept = await fill(store, artifact(DOGS), DOGS.upload_key("a" * 64), DOGS.training_key("r", 1, "outcome.json"))
        await SweptInstallation(store, ClassifierCluster(make_manifest("dogs", **UNREADABLE))).sweep_twice()
        assert await stored(store) == kept

    async def test_orphans_of_others_are_swept_although_an_object_is_unreadable(self, store: ObjectStore) -> None:
        await fill(store, artifact(CATS))
        cluster = ClassifierCluster(make_manifest("dogs", **UNREADABLE), make_manifest("cats"))
        assert (await SweptInstallation(store, cluster).sweep_twice()).deleted == 1

    async def test_data_of_a_deleted_classifier_is_deleted_although_another_object_is_unreadable(
        self, store: ObjectStore
    ) -> None:
        await fill(store, artifact(CATS))
        installation = SweptInstallation(store, ClassifierCluster(make_manifest("dogs", **UNREADABLE)))
        await installation.operator.delete_classifier(("team-a", "cats_1"))
        assert await stored(store) == set()

    async def test_an_unreadable_object_keeps_the_data_of_a_deleted_one_with_its_id(self, store: ObjectStore) -> None:
        kept = await fill(store, artifact(DOGS))
        installation = SweptInstallation(store, ClassifierCluster(make_manifest("again", classifier_id="dogs_1", **UNREADABLE)))
        await installation.operator.delete_classifier(("team-a", "dogs_1"))
        assert await stored(store) == kept


class TestForbiddenNamespaces:
    async def test_a_forbidden_namespace_keeps_its_data_and_others_are_swept(self, store: ObjectStore) -> None:
        forbidden = ClassifierLocation(namespace="team-b", classifier_id="birds_1")
        kept = await fill(store, artifact(forbidden))
        await fill(store, artifact(CATS))
        cluster = ClassifierCluster(make_manifest("dogs"))
        cluster.forbidden = {"team-b"}
        await SweptInstallation(store, cluster, namespaces=("team-a", "team-b")).sweep_twice()
        assert await stored(store) == kept

    async def test_nothing_is_swept_if_all_namespaces_are_forbidden(self, store: ObjectStore) -> None:
        cluster = ClassifierCluster()
        cluster.forbidden = {"team-a", "team-b"}
        with pytest.raises(ForbiddenError):
            await SweptInstallation(store, cluster, namespaces=("team-a", "team-b")).sweep()


class TestDeletions:
    async def test_data_of_a_deleted_classifier_is_deleted_although_the_sweep_is_stopped(self, store: ObjectStore) -> None:
        kept = await fill(store, *(artifact(CATS, f"{number}") for number in range(ALLOWANCE_OBJECTS + 1)))
        await fill(store, artifact(DOGS))
        installation = SweptInstallation(store, ClassifierCluster(), limit_percent=25)
        assert (await installation.sweep_twice()).stopped is StopReason.SHARE_EXCEEDED
        await installation.operator.delete_classifier(("team-a", "dogs_1"))
        assert await stored(store) == kept

    async def test_nothing_is_deleted_from_the_store_of_another_installation(self, store: ObjectStore) -> None:
        await SweptInstallation(store, ClassifierCluster(), "uid-1").sweep()
        kept = await fill(store, artifact(DOGS))
        installation = SweptInstallation(store, ClassifierCluster(), "uid-2")
        with pytest.raises(OtherInstallationError):
            await installation.operator.delete_classifier(("team-a", "dogs_1"))
        assert await stored(store) == kept

    async def test_nothing_is_deleted_while_the_crd_is_being_deleted(self, store: ObjectStore) -> None:
        kept = await fill(store, artifact(DOGS))
        cluster = ClassifierCluster()
        cluster.accepting = [False]
        with pytest.raises(ResourceGoneError):
            await SweptInstallation(store, cluster).operator.delete_classifier(("team-a", "dogs_1"))
        assert await stored(store) == kept


class TestLostArtifacts:
    @pytest.mark.parametrize("identity", ["uid-1", "uid-2"], ids=["owner", "another installation"])
    async def test_a_missing_served_artifact_is_reported(self, store: ObjectStore, identity: str) -> None:
        await SweptInstallation(store, ClassifierCluster(), "uid-1").sweep()
        report = await SweptInstallation(store, ClassifierCluster(make_manifest("dogs", status=SERVED)), identity).sweep()
        assert report.lost_artifacts == {ObjectKey("team-a", "dogs"): REVISION}

    async def test_an_existing_artifact_is_not_reported(self, store: ObjectStore) -> None:
        await fill(store, artifact(DOGS))
        report = await SweptInstallation(store, ClassifierCluster(make_manifest("dogs", status=SERVED))).sweep()
        assert report.lost_artifacts == {}

    async def test_an_artifact_that_was_stored_after_the_list_is_not_reported(self, store: ObjectStore) -> None:
        cluster = ClassifierCluster(make_manifest("dogs", status=SERVED))
        folder = Path(store.url.removeprefix("file://")) / artifact(DOGS)

        def write() -> None:
            folder.parent.mkdir(parents=True)
            folder.write_text("{}")

        cluster.after_list = write
        assert (await SweptInstallation(store, cluster).sweep()).lost_artifacts == {}
