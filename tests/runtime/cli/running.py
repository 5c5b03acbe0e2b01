"""Commands run as users run them, and what the tests read of what came."""

import json
import subprocess
import sys
from pathlib import Path


def run(*arguments: object, **options: object) -> subprocess.CompletedProcess[str]:
    """`ortcam ARGUMENTS` in a process of its own, as a user runs it."""
    return subprocess.run(
        [sys.executable, "-m", "ortcam", *map(str, arguments)], capture_output=True, text=True, check=False, **options
    )


def complaints(result: subprocess.CompletedProcess[str]) -> list[str]:
    assert "Traceback" not in result.stderr, result.stderr
    return [line for line in result.stderr.splitlines() if line.startswith("ortcam: ")]


def numeric_bundle(bundle: Path, labels: list[str]) -> Path:
    """The bundle with other labels; a copy."""
    manifest = json.loads((bundle / "bundle.json").read_text("utf-8"))
    (bundle / "bundle.json").write_text(json.dumps(manifest | {"labels": labels}))
    return bundle


def explained(output: Path) -> list[str]:
    """The maps below an output folder."""
    return sorted(path.relative_to(output).as_posix() for path in output.rglob("*.npy"))
