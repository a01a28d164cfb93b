"""What the inference server reads from its environment. The operator sets it."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address

from ocelli_api.pod_environment import PodSettings
from ocelli_api.pods import Environment
from ocelli_api.settings import SettingType, checked, setting

_IP_ADDRESS = checked("an IP address", str, ip_address)


@dataclass(frozen=True, kw_only=True)
class InferenceSettings(PodSettings):
    """Which revision to serve, from where, and with how much of the machine."""

    bind_address: str = setting(Environment.BIND_ADDRESS, _IP_ADDRESS, "0.0.0.0")
    """Address that the server listens on: the Pod's."""
    artifact_digest: str = setting(Environment.ARTIFACT_DIGEST, SettingType("a SHA-256 (hex)", str), "")
    """Digest that the artifact of the revision must have, from the Classifier's status. Empty: it is not known."""
