"""What the environment tells the inference server. The variables are those of `ocelli_api.pods.Environment`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address

from ocelli_api.classifier import Accelerator
from ocelli_api.pod_environment import SettingsError, log_level, parse_accelerator, require
from ocelli_api.pods import Environment

DEFAULT_BIND_ADDRESS = "0.0.0.0"
CPU_COUNT_LIMIT = 16
"""More cores than one process can feed with images; a Pod without a CPU limit would take all of a node's, and their memory."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Which revision to serve, from where, and with how much of the machine."""

    store_url: str
    classifier: str
    """`namespace/name`, for messages."""
    namespace: str
    classifier_id: str
    revision: str
    bind_address: str
    cpu_count: int
    """Whole cores the process may use: at most so many threads compute at a time."""
    accelerator: Accelerator
    log_level: str


def parse_settings(environment: Mapping[str, str], *, usable_cores: int) -> Settings:
    """Type the environment; `usable_cores` counts where no CPU limit is set, and bounds one that is higher, as 16 does.

    Raises:
        SettingsError: a variable is missing or wrong; the message names it.
    """
    return Settings(
        store_url=require(environment, Environment.STORE_URL),
        classifier=require(environment, Environment.CLASSIFIER),
        namespace=require(environment, Environment.NAMESPACE),
        classifier_id=require(environment, Environment.CLASSIFIER_ID),
        revision=require(environment, Environment.REVISION),
        bind_address=_bind_address(environment),
        cpu_count=_cpu_count(environment, usable_cores),
        accelerator=parse_accelerator(environment),
        log_level=log_level(environment),
    )


def _bind_address(environment: Mapping[str, str]) -> str:
    text = environment.get(Environment.BIND_ADDRESS) or DEFAULT_BIND_ADDRESS
    try:
        return str(ip_address(text))
    except ValueError:
        raise SettingsError(f"environment variable {Environment.BIND_ADDRESS} is {text!r}; give an IP address") from None


def _cpu_count(environment: Mapping[str, str], usable_cores: int) -> int:
    text = environment.get(Environment.CPU_LIMIT, "")
    if not text:
        return min(usable_cores, CPU_COUNT_LIMIT)
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise SettingsError(
            f"environment variable {Environment.CPU_LIMIT} is {text!r}; give a whole number of cores, 1 or more"
        )
    return min(int(text), usable_cores, CPU_COUNT_LIMIT)
