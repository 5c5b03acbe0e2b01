"""Methods that an installed package offers, and what is said of a package that cannot be loaded."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.runtime.methods import toys

from ortcam.bundle.shipped import demo_image
from ortcam.methods.registry import ENTRY_POINTS

PLUGIN = "import pathlib\npathlib.Path(__file__).with_name('loaded').write_text('')\nfrom toys import TOYS\n"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of packages: one offers the toys, one cannot be loaded."""
    folder = tmp_path_factory.mktemp("packages")
    shutil.copy(toys.__file__, folder / "toys.py")
    (folder / "toy_plugin.py").write_text(PLUGIN)
    information = folder / "toy_plugin-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: toy-plugin\nVersion: 1.0\n")
    entries = "toys = toy_plugin:TOYS\nbroken = toy_plugin:NOTHING\n"
    (information / "entry_points.txt").write_text(f"[{ENTRY_POINTS}]\n{entries}")
    return folder


def _ran(installed: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    paths = os.pathsep.join([str(installed), *filter(None, [os.environ.get("PYTHONPATH")])])
    return subprocess.run(
        [sys.executable, "-m", "ortcam", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": paths, "COLUMNS": "100"},
    )


@pytest.mark.slow
def test_the_command_line_finds_an_installed_method_and_names_a_plugin_that_is_broken(
    installed: Path, tmp_path: Path
) -> None:
    found = _ran(installed, "explain", "shapes", str(demo_image()), "-m", "toy-head", "-o", str(tmp_path))
    assert found.returncode == 0, found.stderr
    assert (tmp_path / "mug-umbrella" / "toy-head" / "manifest.json").is_file()
    warned = "the method plugin 'broken' (toy_plugin:NOTHING) cannot be loaded: AttributeError"
    assert found.stderr.count(warned) == 1
    listed = _ran(installed, "methods")
    assert "toy-mask" in listed.stdout
    assert listed.stderr.count(warned) == 1


@pytest.mark.slow
def test_packages_are_not_looked_for_where_a_known_method_is_named(installed: Path, tmp_path: Path) -> None:
    (installed / "loaded").unlink(missing_ok=True)
    found = _ran(installed, "explain", "shapes", str(demo_image()), "-m", "cam,sscam", "-o", str(tmp_path), "-t", "0",
                 "--budget", "1", "--option", "num_samples=1")  # fmt: skip
    assert (found.returncode, "plugin" in found.stderr) == (0, False), found.stderr
    assert not (installed / "loaded").exists()
    assert "accepted: auto, scorecam" in _ran(installed, "methods", "no-such").stderr
    assert (installed / "loaded").exists()
