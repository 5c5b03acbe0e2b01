"""The runtime's tests run where PyTorch is not installed; those that compare with it say so and are skipped."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

# The files that need PyTorch from their first line on.
WITH_TORCH = {
    "test_fusion_in_pytorch.py",
    "test_heads_of_modules.py",
    "test_memory.py",
    "test_models_of_torch.py",
    "test_preprocessing.py",
    "test_tensors.py",
}
REFUSE = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "torchvision"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Refuse())
import pytest
sys.exit(pytest.main(sys.argv[1:]))
"""


def run_tests(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST_")}
    return subprocess.run(
        [sys.executable, "-c", REFUSE, "-q", "-p", "no:cacheprovider", *arguments],
        cwd=REPOSITORY,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.long
def test_all_of_them_are_collected_and_only_comparisons_skipped() -> None:
    result = run_tests("tests/runtime", "-k", "test_explainer")
    assert result.returncode == 0, result.stdout
    skipped = [line for line in result.stdout.splitlines() if line.startswith("SKIPPED")]
    assert {Path(line.split()[2].partition(":")[0]).name for line in skipped} == WITH_TORCH, result.stdout
    assert " passed" in result.stdout


@pytest.mark.long
@pytest.mark.thorough
def test_all_of_them_run() -> None:
    result = run_tests("tests/runtime")
    assert result.returncode == 0, result.stdout
    assert " passed" in result.stdout
