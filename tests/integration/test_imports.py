"""What takes long to import is not imported before it is needed."""

import subprocess
import sys

ANTHROPIC = """
import sys
from services.llm_worker.providers.registry import Registry
from shared.settings import Settings
Registry(Settings(anthropic_api_key="k"))
sys.exit("anthropic" in sys.modules)
"""
ALEMBIC = "import sys, services.store.__main__; sys.exit('alembic' in sys.modules)"


def test_alembic_is_not_imported_while_there_is_nothing_to_migrate():
    done = subprocess.run([sys.executable, "-c", ALEMBIC], check=False, timeout=60)

    assert done.returncode == 0


def test_the_sdk_of_anthropic_is_not_imported_before_it_is_needed():
    done = subprocess.run([sys.executable, "-c", ANTHROPIC], check=False, timeout=60)

    assert done.returncode == 0
