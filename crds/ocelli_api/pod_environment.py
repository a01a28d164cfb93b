"""What trainer and inference server both read from their environment. The operator sets it when it builds their Pods."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from ocelli_api.classifier import Accelerator
from ocelli_api.pods import Environment
from ocelli_api.settings import FILE, LOG_LEVEL, NAME, PUBLIC_KEYS, STORE_URL, SettingType, number, one_of, setting
from ocelli_api.signing_keys import PublicKey

THREADS_LIMIT = 16
"""More threads read and decode no faster, and each needs memory of its own: a Pod without a CPU limit would take all of a
node's."""

COUNT = number(int, 1)


def _parse_cpu_count(text: str) -> int:
    usable_cores = len(os.sched_getaffinity(0))
    return min(COUNT.parse(text) if text else usable_cores, usable_cores, THREADS_LIMIT)


_CPU_COUNT = SettingType("a whole number of cores, at least 1", _parse_cpu_count)
_ACCELERATOR = one_of({str(item): item for item in Accelerator})


@dataclass(frozen=True, kw_only=True)
class TerminationMessageSettings:
    """Read before all others, because a wrong setting is reported there."""

    termination_message_path: Path = setting(Environment.TERMINATION_MESSAGE_PATH, FILE, "/dev/termination-log")
    """File that the termination message is written to."""


@dataclass(frozen=True, kw_only=True)
class PodSettings(TerminationMessageSettings):
    """Which Classifier and revision, from which store, and with how much of the machine."""

    store_url: str = setting(Environment.STORE_URL, STORE_URL)
    """Object store: `file:///folder`, a bucket, or `http://host` of the embedded store."""
    classifier: str = setting(Environment.CLASSIFIER, SettingType("NAMESPACE/NAME", str))
    """The Classifier, for messages."""
    namespace: str = setting(Environment.NAMESPACE, NAME)
    """Namespace of the Classifier: the tenant, in the layout of the store."""
    classifier_id: str = setting(Environment.CLASSIFIER_ID, NAME)
    """Id of the Classifier, in the layout of the store."""
    revision: str = setting(Environment.REVISION, SettingType("a revision", str))
    """Revision to train or to serve."""
    cpu_count: int = setting(Environment.CPU_LIMIT, _CPU_COUNT, "")
    """How many threads compute at the same time: the CPU limit of the container, rounded up, at most 16, and never more than
    the cores that the process may use. Empty: no limit."""
    accelerator: Accelerator = setting(Environment.ACCELERATOR, _ACCELERATOR, Accelerator.AUTO)
    """`GPU` needs a GPU, `CPU` ignores one, and `Auto` uses one if there is one."""
    signing_public_keys: tuple[PublicKey, ...] = setting(Environment.SIGNING_PUBLIC_KEYS, PUBLIC_KEYS, "")
    """Public keys of Ed25519, one of which must have signed an artifact. Empty: signatures are not verified."""
    log_level: str = setting(Environment.LOG_LEVEL, LOG_LEVEL, "INFO")
    """Lowest level of the log lines that are written."""
