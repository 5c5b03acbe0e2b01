"""Files of the zoo with their bundles; each is exported once in a process."""

import functools

import pytest
from tests.export.zoo import ZOO
from tests.export.zoo.bundles import REPRESENTATIVES, Exported
from tests.export.zoo.graphs import (
    ZooFile,
)

from ortcam.bundle import Bundle
from ortcam.errors import OrtcamError
from ortcam_export import export


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """A file of the zoo by name, and its bundle or why there is none; each is made once."""

    @functools.cache
    def made(name: str) -> tuple[ZooFile, Bundle | OrtcamError]:
        file = ZOO[name](tmp_path_factory.mktemp("zoo"))
        try:
            return file, export(file.path, file.path.with_suffix(".ortcam"), **file.arguments)
        except OrtcamError as error:
            return file, error

    return made


@pytest.fixture(
    scope="module",
    params=[pytest.param(name, marks=[] if name in REPRESENTATIVES else pytest.mark.slow) for name in ZOO],
)
def name(request: pytest.FixtureRequest) -> str:
    """Of a file; `make test` takes one of each kind."""
    return str(request.param)


@pytest.fixture
def file(name: str, exported: Exported) -> ZooFile:
    return exported(name)[0]


@pytest.fixture
def bundle(name: str, exported: Exported) -> Bundle:
    """The file's bundle; where there is none, `test_the_file_exports` says why, once."""
    bundle = exported(name)[1]
    if isinstance(bundle, OrtcamError):
        pytest.skip("not exported")
    return bundle
