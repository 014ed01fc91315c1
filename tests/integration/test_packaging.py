"""What installs natterlog: the lock, the Makefile, the image, the compose file."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from services.supervisor import embedded_nats

REPOSITORY = Path(__file__).parents[2]
LOCKS = ["requirements.txt", "requirements-dev.txt"]


def locked(name: str) -> dict[str, list[str]]:
    """Each requirement of a lock with its options, as pip reads them."""
    text = (REPOSITORY / name).read_text()
    text = re.sub(r"^#.*\n", "", text, flags=re.MULTILINE).replace("\\\n", "")
    lines = [re.split(r"\s+(?=--)", line.strip()) for line in text.splitlines()]
    return {line[0]: line[1:] for line in lines}


def wanted() -> dict[str, list[Requirement]]:
    """What ``pyproject.toml`` asks of each lock."""
    project: dict[str, Any] = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    groups = project["dependency-groups"]
    run = [Requirement(it) for it in project["project"]["dependencies"] + groups["build"]]
    return {LOCKS[0]: run, LOCKS[1]: run + [Requirement(it) for it in groups["dev"]]}


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_names_every_package_by_version_and_hash(name: str):
    careless = [
        requirement
        for requirement, options in locked(name).items()
        if not re.match(r"[\w.-]+(\[[\w,-]+\])?==\S+", requirement)
        or not options
        or any(not re.fullmatch(r"--hash=sha256:[0-9a-f]{64}", option) for option in options)
    ]

    assert careless == []


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_names_no_host_so_that_it_works_behind_a_mirror(name: str):
    assert not re.search(r"://|index-url|find-links|trusted-host", (REPOSITORY / name).read_text())


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_has_what_pyproject_asks_for(name: str):
    has = {
        canonicalize_name(requirement.name): str(requirement.specifier).removeprefix("==")
        for requirement in map(Requirement, locked(name))
    }

    missing = [
        str(it)
        for it in wanted()[name]
        if canonicalize_name(it.name) not in has
        or not it.specifier.contains(has[canonicalize_name(it.name)])
    ]

    assert missing == []


def test_both_locks_agree_so_that_tests_run_what_users_run():
    run, dev = ({Requirement(it).name: it.partition(" ;")[0] for it in locked(n)} for n in LOCKS)

    assert dev | run == dev


def test_the_compose_file_keeps_to_the_specification():
    checked = subprocess.run(
        [
            Path(sys.executable).with_name("check-jsonschema"),
            "--builtin-schema",
            "vendor.compose-spec",
            "compose.yaml",
        ],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )

    assert checked.returncode == 0, checked.stdout


def test_nats_server_takes_the_configuration_for_containers():
    checked = subprocess.run(
        [embedded_nats.find_binary(), "-t", "-c", REPOSITORY / "deploy" / "nats.conf"],
        env={**os.environ, "NATS_USER": "natterlog", "NATS_PASSWORD": "secret"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert checked.returncode == 0, checked.stderr


def test_the_server_is_configured_alike_in_containers_and_embedded(tmp_path: Path):
    server = embedded_nats.EmbeddedNats(
        binary=tmp_path, directory=tmp_path, port=4222, password="secret"
    )
    differing = re.compile(r"^ *(listen|http|user|password|store_dir|#)")

    def rules(text: str) -> list[str]:
        return [line for line in text.splitlines() if not differing.match(line)]

    container = (REPOSITORY / "deploy" / "nats.conf").read_text()

    assert rules(container) == rules(embedded_nats.config(server))


def test_the_makefile_tells_what_it_does():
    listed = subprocess.run(
        ["make", "--no-print-directory"],
        cwd=REPOSITORY,
        env={**os.environ, "MAKEFLAGS": ""},
        capture_output=True,
        text=True,
        check=True,
    ).stdout

    tasks = re.findall(r"^  make (\w+) +\S", listed, flags=re.MULTILINE)
    assert tasks == [
        *("help", "run", "unit", "test", "chaos", "check", "fmt", "bench", "lock", "clean"),
    ]


def test_ci_is_a_valid_script_that_may_be_run():
    script = REPOSITORY / ".ci" / "run"

    subprocess.run(["bash", "-n", script], check=True)

    assert os.access(script, os.X_OK)
