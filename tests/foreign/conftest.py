"""A server, and an environment with clients that others wrote."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.conftest import REPOSITORY
from tests.runtime.serve.faults.server import PATIENCE, Server, serving

import ortcam
from ortcam import Explainer
from ortcam.bundle.shipped import bundle_path

CLIENTS = Path(__file__).parent / "clients"


@pytest.fixture(scope="session")
def foreign() -> Path:
    """The Python that has the foreign clients; tests that ask for it skip where it is absent."""
    python = Path(os.environ.get("ORTCAM_FOREIGN", REPOSITORY / ".venv-foreign")) / "bin" / "python"
    if not python.is_file():
        pytest.skip(f"no foreign clients: `make .venv-foreign/foreign.stamp` makes {python.parents[1]}")
    return python


@pytest.fixture(scope="session")
def explainer() -> Iterator[Explainer]:
    """The library, whose answers a server gives."""
    with ortcam.load(bundle_path()) as loaded:
        yield loaded


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """`ortcam serve shapes`."""
    with serving(tmp_path_factory.mktemp("server"), bundle_path()) as running:
        yield running


def run_client(python: Path, name: str, *arguments: object) -> str:
    """What a client prints.

    Raises:
        AssertionError: it failed.
    """
    command = [str(python), str(CLIENTS / name), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout
