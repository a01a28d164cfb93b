"""The environment variables that tests see, and those that are removed.

Tests must have the same results with any environment of the caller: settings of `make run` and of Ocelli's programs,
credentials of clouds, kubeconfigs, proxies. `tests/conftest.py` removes these before it imports anything else.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping

REMOVED_PREFIXES = ("OCELLI_", "AWS_", "AZURE_", "GOOGLE_", "WATSON_", "VISUAL_RECOGNITION_", "IBM_", "KUBE", "POD_")
REMOVED_NAMES = frozenset(
    {
        # Settings of `make run`.
        "PORT",
        "STATE_DIR",
        "BACKBONES",
        "WEIGHTS",
        "BUILT_INS",
        # Set in Pods, and for published weights.
        "TERMINATION_MESSAGE_PATH",
        "TORCH_HOME",
    }
)
KEPT = {
    "OCELLI_CACHE_DIR": "where built and downloaded programs are",
    "OCELLI_RELEASE_BINARIES": "0: build the control plane, do not download it",
    "OCELLI_KUBERNETES_RELEASE_URL": "a mirror of the release binaries of Kubernetes",
    "OCELLI_ETCD_RELEASE_URL": "a mirror of the release binaries of etcd",
    "OCELLI_REWRITE_GOLDEN": "rewrite the golden files instead of comparing with them",
    "OCELLI_LONG_TESTS": "collect tests/long",
    "OCELLI_OUTAGE_SECONDS": "length of the outages of the API server",
    "OCELLI_STORE_OUTAGE_SECONDS": "length of the store's outage; 0: skip it",
    "OCELLI_STORE_OUTAGE_TRAININGS": "trainings during the store's outage",
    "OCELLI_DRAINS": "how often each server is drained",
    "OCELLI_DRAINS_SEED": "seed of the drains",
    "OCELLI_HOSTILE_REQUESTS": "how many hostile requests are sent",
    "OCELLI_HOSTILE_SEED": "seed of the hostile requests",
    "OCELLI_E2E_ADDRESS": "set by `make e2e`: where the installed gateway answers",
    "OCELLI_E2E_KIND": "set by `make e2e`: the kind cluster",
    "KUBEBUILDER_ASSETS": "a folder with the control plane's programs",
}
"""The variables that steer tests, among those that would be removed."""
PROXY_NAMES = frozenset({"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"})
DOWNLOAD_PREFIX = "FOR_DOWNLOADS_"


def clean(environ: MutableMapping[str, str]) -> None:
    """Remove variables that tests must not see. Proxies are kept under other names, for `restore_proxies`."""
    # `make e2e` installs into a cluster first, and names it.
    kept = KEPT.keys() | ({"KUBECONFIG"} if "OCELLI_E2E_ADDRESS" in environ else set())
    for name in set(environ) - kept:
        if name.upper() in PROXY_NAMES:
            environ[DOWNLOAD_PREFIX + name] = environ.pop(name)
        elif name.startswith(REMOVED_PREFIXES) or name in REMOVED_NAMES:
            del environ[name]


def restore_proxies(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment of a command that downloads from the internet."""
    proxies = {name.removeprefix(DOWNLOAD_PREFIX): value for name, value in environ.items() if name.startswith(DOWNLOAD_PREFIX)}
    return {**environ, **proxies}
