"""Every dialect is in each place that names them all."""

import tomllib
from pathlib import Path

from services.gateway.dialects.registry import DIALECTS

REPOSITORY = Path(__file__).parents[3]
FOLDERS = {
    path.parent.name for path in (REPOSITORY / "services/gateway/dialects").glob("*/dialect.py")
}


def test_every_folder_is_a_dialect_of_the_registry():
    assert {dialect.name for dialect in DIALECTS} == FOLDERS


def test_no_dialect_may_import_another():
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    contracts = project["tool"]["importlinter"]["contracts"]

    name = "a dialect imports no other dialect"
    [apart] = [contract for contract in contracts if contract["name"] == name]

    assert set(apart["modules"]) == {f"services.gateway.dialects.{name}" for name in FOLDERS}


def test_each_recording_has_a_name_of_its_own():
    names = [name for dialect in DIALECTS for name in dialect.recordings]

    assert len(names) == len(set(names))
