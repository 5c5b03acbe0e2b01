"""A folder of Debian packages for any architecture, and programs of it that run here by qemu-user.

    python -m tests.edge.debian arm64 FOLDER libonnxruntime-dev g++

apt resolves, downloads and verifies in folders of its own, so that this machine's packages stay as they are and nobody
need be root. The mirror is the one of this machine's apt. Packages are unpacked, not installed: none of their scripts
runs.
"""

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

__all__ = ["ARCHITECTURES", "command", "emulator", "mirror", "missing_tools", "source", "unpack", "versions"]

ARCHITECTURES: Final = {  # Debian's name: that of its folders of libraries, of qemu-user, and of its loader
    "amd64": ("x86_64-linux-gnu", "x86_64"),
    "arm64": ("aarch64-linux-gnu", "aarch64"),
    "armhf": ("arm-linux-gnueabihf", "arm"),
}
_SUITE: Final = "trixie"
_KEYRING: Final = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_MERGED: Final = ("bin", "lib", "lib64", "sbin")  # links into /usr, which the package base-files would make
_FIELD: Final = re.compile(r"^(Package|Version): (.*)$", re.MULTILINE)
_CONFIGURATION: Final = """\
APT::Architecture "{architecture}";
APT::Architectures {{ "{architecture}"; }};
APT::Install-Recommends "false";
APT::Sandbox::User "";
Acquire::Languages "none";
Acquire::Retries "5";
Dir::Etc::sourcelist "{folder}/sources.list";
Dir::Etc::sourceparts "-";
Dir::Etc::preferencesparts "-";
Dir::State "{folder}";
Dir::State::status "{folder}/status";
Dir::Cache "{folder}";
"""


def missing_tools(architecture: str) -> str | None:
    """Why packages of an architecture cannot be unpacked and run here; None where they can.

    What is unpacked already needs qemu-user alone.
    """
    if emulator(architecture) is None:
        return f"no qemu-user for {architecture}: apt-get install qemu-user-static"
    for tool in ("apt-get", "dpkg-deb"):
        if shutil.which(tool) is None:
            return f"no {tool}: Debian's packages are fetched with it"
    if not _KEYRING.exists():
        return f"no {_KEYRING}: apt-get install debian-archive-keyring"
    return None if mirror() else "this machine's apt has no mirror of Debian"


def emulator(architecture: str) -> str | None:
    """The program of qemu-user for an architecture, or None."""
    name = f"qemu-{ARCHITECTURES[architecture][1]}"
    return shutil.which(f"{name}-static") or shutil.which(name)


def mirror() -> str | None:
    """The address of the mirror of Debian that this machine's apt asks, or None."""
    if shutil.which("apt-get") is None:
        return None
    wanted = ["--format", "$(REPO_URI)", "Created-By: Packages", "Label: Debian"]
    answer = subprocess.run(["apt-get", "indextargets", *wanted], capture_output=True, text=True, check=False)
    return next(iter(answer.stdout.split()), None)


def unpack(architecture: str, packages: Sequence[str], folder: Path) -> Path:
    """Unpack packages and all they depend on into FOLDER/root, which is returned.

    A folder that has them already is left as it is, without a look at the network.

    Args:
        architecture: of `ARCHITECTURES`.
        packages: Debian's names.
        folder: kept between calls; packages of several calls lie in it together.

    Raises:
        RuntimeError: apt or dpkg-deb failed.
    """
    folder = folder.resolve()
    root, record = folder / "root", folder / "packages.json"
    present: list[str] = json.loads(record.read_text()) if record.exists() else []
    if set(packages) <= set(present):
        return root
    _configure(architecture, folder)
    apt = ["apt-get", "--config-file", str(folder / "apt.conf"), "--quiet", "--yes"]
    _run([*apt, "update"])
    _run([*apt, "install", "--download-only", *packages])
    for name in _MERGED:
        (root / "usr" / name).mkdir(parents=True, exist_ok=True)
        if not (root / name).is_symlink():
            (root / name).symlink_to(f"usr/{name}")
    archives, entries = sorted((folder / "archives").glob("*.deb")), []
    for archive in archives:
        _run(["dpkg-deb", "--extract", str(archive), str(root)])
        entries.append(f"{_run(['dpkg-deb', '--field', str(archive)]).strip()}\nStatus: install ok installed\n\n")
    with (folder / "status").open("a") as status:  # all at once: with half of it, apt would find what was begun broken
        status.write("".join(entries))
    for archive in archives:
        archive.unlink()
    _choose_alternatives(root / "usr/lib" / ARCHITECTURES[architecture][0])
    record.write_text(json.dumps(sorted({*present, *packages})))
    return root


def source(package: str, folder: Path, *, patched: bool = False) -> Path:
    """Unpack a package's source into a folder of its own in FOLDER, which is returned.

    A source that is there already is left as it is, without a look at the network.

    Args:
        package: its name.
        folder: as for `unpack`.
        patched: as Debian builds it, not as its authors published it; needs `patch`.

    Raises:
        RuntimeError: apt, tar or patch failed.
    """
    folder = folder.resolve()
    made, part = folder / "sources" / package, folder / "sources" / f"{package}.part"
    if made.exists():
        return made
    _configure("amd64", folder, "deb", "deb-src")
    apt = ["apt-get", "--config-file", str(folder / "apt.conf"), "--quiet", "--yes"]
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    _run([*apt, "update"])
    _run([*apt, "source", "--download-only", *([] if patched else ["--tar-only"]), package], part)
    (archive,) = part.glob("*.orig.tar.*[!c]")  # beside it there may be a signature, .asc
    _run(["tar", "--extract", "--strip-components=1", "--file", archive.name], part)
    if patched:
        (changes,) = part.glob("*.debian.tar.*")
        _run(["tar", "--extract", "--file", changes.name], part)
        for name in (part / "debian/patches/series").read_text().split():
            _run(["patch", "--strip=1", "--input", f"debian/patches/{name}"], part)
    archive.unlink()
    return part.rename(made)


def versions(folder: Path) -> dict[str, str]:
    """The packages that lie in a folder of `unpack`, and Debian's versions of them."""
    fields = [dict(_FIELD.findall(entry)) for entry in (folder / "status").read_text().split("\n\n")]
    return {entry["Package"]: entry["Version"] for entry in fields if "Package" in entry}


def command(architecture: str, root: Path, program: str, variables: Mapping[str, str] | None = None) -> list[str]:
    """The command that runs a program of an unpacked root; absolute paths are looked up in the root first.

    Args:
        architecture: of `ARCHITECTURES`.
        root: what `unpack` returned.
        program: its path, relative to the root or absolute.
        variables: of the environment, beside this process's own.
    """
    qemu = emulator(architecture)
    if qemu is None:
        raise RuntimeError(missing_tools(architecture))
    settings = [part for name, value in (variables or {}).items() for part in ("-E", f"{name}={value}")]
    return [qemu, "-L", str(root), *settings, str(root / program)]


def _configure(architecture: str, folder: Path, *kinds: str) -> None:
    """Write what apt needs for folders of its own; in their list of installed packages stands what is unpacked."""
    for name in ("lists/partial", "archives/partial"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / "status").touch()
    lines = [f"{kind} [signed-by={_KEYRING}] {mirror()} {_SUITE} main\n" for kind in kinds or ("deb",)]
    (folder / "sources.list").write_text("".join(lines))
    (folder / "apt.conf").write_text(_CONFIGURATION.format(architecture=architecture, folder=folder))


def _choose_alternatives(libraries: Path) -> None:
    """Link BLAS and LAPACK where an installation would have chosen among the packages that offer them."""
    for name in ("libblas.so.3", "liblapack.so.3"):
        offers = sorted(libraries.glob(f"*/{name}"), key=lambda path: ("openblas" not in path.parent.name, path))
        if offers and not (libraries / name).exists():
            (libraries / name).symlink_to(offers[0].relative_to(libraries))


def _run(arguments: Sequence[str], folder: Path | None = None) -> str:
    variables = {**os.environ, "LC_ALL": "C"}
    ran = subprocess.run(arguments, capture_output=True, text=True, check=False, env=variables, cwd=folder)
    if ran.returncode:
        raise RuntimeError(f"{' '.join(arguments)}: {ran.stderr.strip()}")
    return ran.stdout


def main() -> int:
    """Unpack packages, and print the root's path."""
    parser = argparse.ArgumentParser(prog="python -m tests.edge.debian", description="Unpack packages of Debian 13.")
    parser.add_argument("architecture", choices=ARCHITECTURES, metavar="ARCHITECTURE", help=", ".join(ARCHITECTURES))
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="for apt's lists and the root")
    parser.add_argument("packages", nargs="+", metavar="PACKAGE")
    options = parser.parse_args()
    if reason := missing_tools(options.architecture):
        print(f"{reason} (this machine is {platform.machine()})", file=sys.stderr)
        return 2
    print(unpack(options.architecture, options.packages, options.folder))
    return 0


if __name__ == "__main__":
    sys.exit(main())
