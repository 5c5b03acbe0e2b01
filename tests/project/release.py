"""What a release has to pass: `python -m tests.project.release`, which is `make dist`.

1. The sdist is built, and the wheel from what the sdist holds.
2. The wheel that the repository builds is the same, byte for byte.
3. twine finds metadata and description in order; the description renders.
4. The wheel is installed in a fresh environment with the serving extra, and explains its own image there.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
CONSTRAINTS = ROOT / "constraints.txt"


def main() -> int:
    """Build and check; returns 0, or 1 with a sentence on standard error."""
    parser = argparse.ArgumentParser(prog="python -m tests.project.release", description=__doc__.partition("\n")[0])
    parser.add_argument("-o", "--output", type=Path, default=ROOT / "dist", help="folder of the built files")
    folder = parser.parse_args().output
    try:
        wheel = release(folder)
    except subprocess.CalledProcessError as error:
        print(f"release: {' '.join(map(str, error.cmd))} ended with {error.returncode}", file=sys.stderr)
        print(error.stdout or "", error.stderr or "", sep="\n", file=sys.stderr)
        return 1
    except RuntimeError as error:
        print(f"release: {error}", file=sys.stderr)
        return 1
    print(f'\n{wheel}\ninstall it: pip install "{wheel.name}[cpu]"')
    return 0


def release(folder: Path) -> Path:
    """Build into a folder and check what is there; returns the wheel.

    Raises:
        CalledProcessError: a tool has found a fault.
        RuntimeError: the two wheels differ, or one lacks a file.
    """
    for old in [*folder.glob("ortcam-*.whl"), *folder.glob("ortcam-*.tar.gz")]:
        old.unlink()
    build = [_uv(), "build", "--quiet", "--build-constraint", str(CONSTRAINTS)]
    _run("sdist, and the wheel from it", [*build, "--out-dir", str(folder), str(ROOT)])
    wheel, sdist = next(folder.glob("ortcam-*.whl")), next(folder.glob("ortcam-*.tar.gz"))
    with tempfile.TemporaryDirectory() as temporary:
        _run("the wheel from the repository", [*build, "--wheel", "--out-dir", temporary, str(ROOT)])
        check_same(wheel, Path(temporary) / wheel.name)
        tool = [_uv(), "tool", "run", "--quiet", "--constraints", str(CONSTRAINTS), "--with", "readme-renderer[md]"]
        _run("metadata and description", [*tool, "twine", "check", "--strict", str(wheel), str(sdist)])
        environment = Path(temporary) / "environment"
        _run("a fresh environment", [_uv(), "venv", "--quiet", "--python", sys.executable, str(environment)])
        install = [_uv(), "pip", "install", "--quiet", "--python", str(environment), "--constraint", str(CONSTRAINTS)]
        _run("the wheel in it", [*install, f"{wheel}[cpu]"])
        program = environment / ("Scripts" if os.name == "nt" else "bin") / "ortcam"
        output = Path(temporary) / "demo"
        _run("its demo", [str(program), "demo", "-o", str(output)], cwd=Path(temporary))
        if not list(output.rglob("*.png")):
            raise RuntimeError(f"`ortcam demo` of {wheel.name} wrote no picture")
    return wheel


def check_same(first: Path, second: Path) -> None:
    """Compare two wheels.

    Raises:
        RuntimeError: they differ; the message says in what.
    """
    if first.read_bytes() == second.read_bytes():
        return
    one, two = ({item.filename: item.CRC for item in zipfile.ZipFile(path).infolist()} for path in (first, second))
    names = sorted(name for name in one.keys() | two.keys() if one.get(name) != two.get(name))
    raise RuntimeError(f"the wheel of the sdist is not the repository's; different: {', '.join(names[:10]) or 'order'}")


def _uv() -> str:
    return str(Path(sys.executable).parent / "uv")


def _run(what: str, command: list[str], *, cwd: Path = ROOT) -> None:
    print(what, end=": ", flush=True)
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    subprocess.run(command, cwd=cwd, env=environment, check=True, capture_output=True, text=True)
    print("ok", flush=True)


if __name__ == "__main__":
    sys.exit(main())
