"""One operator per test or module, in its own namespace, with real trainers and inference servers."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from ocelli_local import SyncClusterAccess
from ocelli_local.pytest_plugin import fresh_namespace
from tests.go_programs import GoProgram, build_before_tests
from tests.installed_backbone import SMALL_SIDE, install_backbone
from tests.integration.operator.operator_process import OperatorProcess
from tests.integration.operator.scene import Scene
from tests.integration.operator.sources import ExampleSources
from tests.integration.operator.write_proxy import WriteProxy
from tests.shipped_rights import NAMESPACE_FILE, load_own_roles, load_rights

CHECKOUT = Path(__file__).resolve().parents[3]
SYSTEM_NAMESPACE = "ocelli-system"
OPERATOR = "ocelli-operator"
KUEUE = GoProgram(name="kueue", module_folder=CHECKOUT / "tests" / "kueue")


def pytest_collection_finish(session: pytest.Session) -> None:
    build_before_tests(session, {"kueue_installed": KUEUE})


@pytest.fixture(scope="session")
def store_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="session")
def backbone(store_folder: Path) -> str:
    """The installed backbone, in the form of OCELLI_BACKBONES."""
    return str(install_backbone(store_folder, SMALL_SIDE))


@pytest.fixture(scope="session")
def sources() -> Iterator[ExampleSources]:
    served = ExampleSources()
    yield served
    served.close()


@pytest.fixture(scope="session")
def operator_kubeconfig(local_cluster: SyncClusterAccess) -> Path:
    """The operator's ServiceAccount, with the rights in `deploy/`."""
    local_cluster.apply(CHECKOUT / "crds" / "classifier.yaml")
    local_cluster.apply(NAMESPACE_FILE)
    local_cluster.apply(load_rights("operator"))
    return local_cluster.service_account_kubeconfig(SYSTEM_NAMESPACE, OPERATOR)


@pytest.fixture
def scene(
    local_cluster: SyncClusterAccess, namespace: str, sources: ExampleSources, store_folder: Path, operator_kubeconfig: Path
) -> Iterator[Scene]:
    """The test's namespace, in which an operator may hold its Lease."""
    yield open_scene(local_cluster, namespace, sources, store_folder)
    sources.release()


def open_scene(cluster: SyncClusterAccess, namespace: str, sources: ExampleSources, store_folder: Path) -> Scene:
    """A namespace in which an operator may hold its Lease."""
    cluster.apply(load_own_roles("operator", namespace))
    # Each namespace is a separate installation that claims the store.
    shutil.rmtree(store_folder / "installation", ignore_errors=True)
    return Scene(cluster=cluster, namespace=namespace, sources=sources, store_folder=store_folder)


SharedScene = Callable[..., AbstractContextManager[Scene]]


@pytest.fixture(scope="session")
def shared_scene(
    local_cluster: SyncClusterAccess,
    sources: ExampleSources,
    store_folder: Path,
    operator_kubeconfig: Path,
    backbone: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> SharedScene:
    """Create a namespace with an operator for all tests of a module. Keyword arguments are settings."""

    @contextlib.contextmanager
    def open_one(title: str, **settings: str) -> Iterator[Scene]:
        with fresh_namespace(local_cluster, title) as namespace:
            scene = open_scene(local_cluster, namespace, sources, store_folder)
            operator = OperatorProcess(
                kubeconfig=operator_kubeconfig,
                namespace=namespace,
                log=tmp_path_factory.mktemp(title) / "operator.log",
                environment={"OCELLI_STORE_URL": store_folder.as_uri(), "OCELLI_BACKBONES": backbone, **settings},
            )
            operator.start()
            try:
                operator.wait_until_leading()
                yield scene
            finally:
                operator.stop()

    return open_one


@pytest.fixture
def build_operator(
    scene: Scene, operator_kubeconfig: Path, store_folder: Path, backbone: str, tmp_path: Path
) -> Iterator[Callable[..., OperatorProcess]]:
    """Create an operator without starting it. Keyword arguments are fields, or settings if they are in upper case."""
    made: list[OperatorProcess] = []

    def build(*, kubeconfig: Path = operator_kubeconfig, identity: str = "operator-1", **settings: str) -> OperatorProcess:
        environment = {"OCELLI_STORE_URL": store_folder.as_uri(), "OCELLI_BACKBONES": backbone, **settings}
        log = tmp_path / f"{identity}.log"
        operator = OperatorProcess(
            kubeconfig=kubeconfig, namespace=scene.namespace, log=log, environment=environment, identity=identity
        )
        made.append(operator)
        return operator

    yield build
    for operator in made:
        if operator.process is not None and operator.process.poll() is None:
            operator.stop()


@pytest.fixture
def operator(build_operator: Callable[..., OperatorProcess]) -> OperatorProcess:
    """A running operator that holds its Lease."""
    operator = build_operator()
    operator.start()
    operator.wait_until_leading()
    return operator


@pytest.fixture
def proxy(operator_kubeconfig: Path, tmp_path: Path) -> Iterator[WriteProxy]:
    proxy = WriteProxy(operator_kubeconfig, tmp_path)
    yield proxy
    proxy.close()
