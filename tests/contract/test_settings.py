"""Settings are the same in the tables of the programs, in the manifests, in the chart and in the pages."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ocelli_api.pods import Environment
from ocelli_api.settings import list_settings
from ocelli_gateway.settings import GatewaySettings
from ocelli_inference.settings import InferenceSettings
from ocelli_operator.settings import OperatorSettings
from ocelli_store.settings import StoreSettings
from ocelli_training.cloud_identity import CloudIdentity
from ocelli_training.settings import TrainerSettings
from tests.contract.test_reference import GENERATOR

CHECKOUT = Path(__file__).resolve().parents[2]
PROGRAMS = (OperatorSettings, GatewaySettings, StoreSettings, InferenceSettings, TrainerSettings)
TOKEN_FILE = Environment.STORE_TOKEN_FILE
"""Read where the embedded store is opened, by every program."""
CHART_TEST = {"OCELLI_URL", "OCELLI_API_KEY"}
"""Variables of the chart's own test."""
TEXT_FILES = (".py", ".md", ".yaml", ".json", ".tpl", ".txt")
NAME = re.compile(r"\bOCELLI_[A-Z_]*[A-Z]\b")


def names_in(*folders: str) -> dict[str, str]:
    """Every variable's name in the text files of these folders, with one file that has it."""
    found: dict[str, str] = {}
    for folder in folders:
        for file in (CHECKOUT / folder).rglob("*"):
            if file.suffix in TEXT_FILES and file.is_file():
                found |= dict.fromkeys(NAME.findall(file.read_text()), str(file.relative_to(CHECKOUT)))
    return found


@pytest.mark.parametrize("program", PROGRAMS)
def test_every_setting_has_a_description_and_a_unique_name(program: type) -> None:
    rows = GENERATOR.setting_rows(program)
    assert [setting.name for setting, meaning in rows if not meaning.endswith(".")] == []
    assert len({setting.name for setting, _ in rows}) == len(rows) == len(list(list_settings(program)))


def test_the_operator_sets_what_trainer_and_inference_server_read() -> None:
    read = {setting.name for program in (InferenceSettings, TrainerSettings) for setting in list_settings(program)}
    set_by_clouds = {setting.name for setting in list_settings(CloudIdentity)}
    assert read - set_by_clouds == set(Environment) - {TOKEN_FILE}


def test_pages_charts_and_messages_name_only_settings_that_exist() -> None:
    known = {setting.name for program in PROGRAMS for setting in list_settings(program)} | {TOKEN_FILE} | CHART_TEST
    others = names_in("local", "clients")
    named = names_in("docs", "charts", "deploy", "operator", "serving", "cluster", "crds")
    assert {name: file for name, file in named.items() if name not in known and name not in others} == {}
