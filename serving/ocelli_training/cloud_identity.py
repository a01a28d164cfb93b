"""The identity that a cloud gives to the ServiceAccount of the trainer's Pod, and the clouds' variables in the environment."""

from __future__ import annotations

from collections.abc import MutableMapping
from dataclasses import dataclass, fields

from ocelli_api.settings import SettingType, setting

_TEXT = SettingType("what the cloud's webhook sets", str)
_CLOUD_VARIABLES = ("AWS_", "GOOGLE_", "AZURE_", "MSI_", "IDENTITY_")


@dataclass(frozen=True, kw_only=True)
class CloudIdentity:
    """The variables that the clouds' webhooks add to a Pod. On Google's cloud, the metadata server knows the identity."""

    aws_role_arn: str = setting("AWS_ROLE_ARN", _TEXT, "")
    """Role of the ServiceAccount (EKS)."""
    aws_web_identity_token_file: str = setting("AWS_WEB_IDENTITY_TOKEN_FILE", _TEXT, "")
    """Token with which it is assumed."""
    aws_container_credentials_full_uri: str = setting("AWS_CONTAINER_CREDENTIALS_FULL_URI", _TEXT, "")
    """Address of the Pod's credentials (EKS Pod Identity)."""
    aws_container_authorization_token_file: str = setting("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", _TEXT, "")
    """Token with which they are asked for."""
    aws_region: str = setting("AWS_REGION", _TEXT, "")
    """Region of the buckets."""
    azure_client_id: str = setting("AZURE_CLIENT_ID", _TEXT, "")
    """Application of the ServiceAccount (AKS)."""
    azure_tenant_id: str = setting("AZURE_TENANT_ID", _TEXT, "")
    """Its tenant."""
    azure_federated_token_file: str = setting("AZURE_FEDERATED_TOKEN_FILE", _TEXT, "")
    """Token with which it logs in."""
    azure_authority_host: str = setting("AZURE_AUTHORITY_HOST", _TEXT, "")
    """Server on which it logs in."""
    azure_storage_account_name: str = setting("AZURE_STORAGE_ACCOUNT_NAME", _TEXT, "")
    """Storage account of the containers."""

    def find_config(self, scheme: str) -> dict[str, str]:
        """The configuration of a client of `obstore` for buckets of this scheme, without what is not set."""
        prefix = {"s3": "aws_", "az": "azure_"}.get(scheme)
        if prefix is None:
            return {}
        values = {item.name: getattr(self, item.name) for item in fields(self) if item.name.startswith(prefix)}
        return {name: value for name, value in values.items() if value}


def forget_cloud_variables(environment: MutableMapping[str, str]) -> None:
    """Remove the clouds' variables from an environment.

    `obstore` fills everything that its caller leaves out from the environment of the process. Once the installation's store is
    open, nothing there may reach the server of a source.
    """
    for name in [name for name in environment if name.upper().startswith(_CLOUD_VARIABLES)]:
        del environment[name]
