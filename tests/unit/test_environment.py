"""Tests do not depend on the caller's environment."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.environment import KEPT, clean, restore_proxies

CHECKOUT = Path(__file__).resolve().parents[2]
# What a user may have exported, with values that make programs fail.
HOSTILE = {
    "PORT": "18080",
    "STATE_DIR": "/nowhere",
    "BACKBONES": "NoSuchBackbone",
    "WEIGHTS": "/nowhere",
    "BUILT_INS": "pets",
    "OCELLI_USER": "apikey",
    "OCELLI_PASSWORD": "x" * 2000,
    "OCELLI_STORE_URL": "nothing://nowhere",
    "OCELLI_LOG_LEVEL": "LOUD",
    "OCELLI_GATEWAY_MISSPELT": "1",
    "OCELLI_LOCAL_STATE_DIR": "/nowhere",
    "AWS_ACCESS_KEY_ID": "someone",
    "AWS_ENDPOINT_URL": "http://127.0.0.1:1",
    "AZURE_STORAGE_ACCOUNT_NAME": "someone",
    "GOOGLE_APPLICATION_CREDENTIALS": "/nowhere",
    "KUBECONFIG": "/nowhere",
    "KUBERNETES_SERVICE_HOST": "127.0.0.1",
    "POD_IP": "192.0.2.1",
    "TERMINATION_MESSAGE_PATH": "/nowhere",
    "TORCH_HOME": "/nowhere",
    "VISUAL_RECOGNITION_URL": "http://127.0.0.1:1",
    "HTTPS_PROXY": "http://127.0.0.1:1",
    "http_proxy": "http://127.0.0.1:1",
}


def test_variables_of_the_caller_are_removed() -> None:
    environ = {"PATH": "/bin", "GOPROXY": "https://proxy.example", **HOSTILE}
    clean(environ)
    assert {name for name in environ if not name.startswith("FOR_DOWNLOADS_")} == {"PATH", "GOPROXY"}


def test_variables_that_steer_tests_are_kept() -> None:
    environ = dict.fromkeys(KEPT, "1")
    clean(environ)
    assert environ == dict.fromkeys(KEPT, "1")


def test_kubeconfig_is_kept_for_the_tests_of_an_installed_chart() -> None:
    environ = {"KUBECONFIG": "/kubeconfig", "OCELLI_E2E_ADDRESS": "http://127.0.0.1:1"}
    clean(environ)
    assert environ["KUBECONFIG"] == "/kubeconfig"


def test_downloads_still_use_the_proxies() -> None:
    environ = {"HTTPS_PROXY": "http://proxy.example"}
    clean(environ)
    # A worker of a parallel run inherits the environment and cleans it again.
    clean(environ)
    assert "HTTPS_PROXY" not in environ
    assert restore_proxies(environ)["HTTPS_PROXY"] == "http://proxy.example"


def test_no_variable_of_the_caller_is_left() -> None:
    assert not HOSTILE.keys() & os.environ.keys()


@pytest.mark.slow
def test_environment_is_clean_before_tests_are_imported() -> None:
    test = f"{Path(__file__).relative_to(CHECKOUT)}::{test_no_variable_of_the_caller_is_left.__name__}"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", "0", test]
    done = subprocess.run(
        command, cwd=CHECKOUT, env={**os.environ, **HOSTILE}, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
