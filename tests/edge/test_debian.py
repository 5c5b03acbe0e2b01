"""How Debian's packages are unpacked and their programs run, with stand-ins for apt, dpkg and qemu-user."""

import os
import shutil
from pathlib import Path

import pytest

from tests.edge.debian import command, emulator, mirror, missing_tools, source, unpack, versions

# apt-get tells its mirror, and downloads a file per package; dpkg-deb unpacks BLAS out of any of them.
APT = """#!/bin/sh
echo "$@" >> {folder}/asked
case "$*" in
indextargets*) echo http://mirror.example/debian; echo http://other.example/debian ;;
*" source "*) tar --create --file "x_1.orig.tar.xz" --directory {folder} made-by-others
    [ ! -d {folder}/debian ] || tar --create --file "x_1.debian.tar.xz" --directory {folder} debian ;;
*install*) shift 6; for name; do touch "{folder}/made/archives/$name.deb"; done ;;
esac
"""
DPKG = """#!/bin/sh
[ "$1" = --field ] && { printf 'Package: %s\\nVersion: 1.21-1\\nDescription: x\\n y\\n' "$(basename "$2" .deb)"; exit; }
for offer in blas openblas-pthread; do
    mkdir -p "$3/usr/lib/arm-linux-gnueabihf/$offer" && touch "$3/usr/lib/arm-linux-gnueabihf/$offer/libblas.so.3"
done
"""


def script(path: Path, text: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with stand-ins, which come first on the path; what apt-get was asked lies in `asked`."""
    script(tmp_path / "bin/apt-get", APT.format(folder=tmp_path))
    script(tmp_path / "bin/dpkg-deb", DPKG)
    script(tmp_path / "bin/qemu-arm-static", "")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    return tmp_path


def test_packages_are_unpacked_once_into_a_root_of_their_own(tools: Path) -> None:
    root = unpack("armhf", ["python3", "python3-numpy"], tools / "made")
    assert root == tools / "made/root"
    asked = (tools / "asked").read_text().splitlines()
    assert asked[-1].endswith("install --download-only python3 python3-numpy")
    assert [(root / name).resolve() for name in ("lib", "bin")] == [root / "usr/lib", root / "usr/bin"]
    # As an installation chooses among the packages that offer BLAS.
    assert (root / "usr/lib/arm-linux-gnueabihf/libblas.so.3").readlink() == Path("openblas-pthread/libblas.so.3")
    status = (tools / "made/status").read_text()
    assert status.count("Status: install ok installed\n\n") == 2
    assert versions(tools / "made") == {"python3": "1.21-1", "python3-numpy": "1.21-1"}
    assert not list((tools / "made/archives").glob("*.deb"))

    assert unpack("armhf", ["python3"], tools / "made") == root
    assert (tools / "asked").read_text().splitlines() == asked
    unpack("armhf", ["python3", "python3-opencv"], tools / "made")
    assert (tools / "asked").read_text().splitlines() != asked


def test_apt_keeps_to_folders_of_its_own(tools: Path) -> None:
    folder = tools / "made"
    unpack("armhf", ["python3"], folder)
    settings = (folder / "apt.conf").read_text()
    assert 'APT::Architecture "armhf";' in settings
    assert all(str(folder) in line for line in settings.splitlines() if line.startswith(("Dir::State", "Dir::Cache")))
    sources = (folder / "sources.list").read_text().split()
    assert sources[0] == "deb"
    assert sources[2:] == ["http://mirror.example/debian", "trixie", "main"]


def test_unpacking_that_was_stopped_begins_again(tools: Path) -> None:
    folder = tools / "made"
    script(tools / "bin/dpkg-deb", DPKG.replace("#!/bin/sh\n", "#!/bin/sh\ncase $2 in *python3.deb) exit 1 ;; esac\n"))
    with pytest.raises(RuntimeError, match=r"python3\.deb"):
        unpack("armhf", ["python3", "python3-numpy"], folder)
    assert not (folder / "status").read_text()  # apt finds what is half installed broken
    assert len(list((folder / "archives").glob("*.deb"))) == 2

    script(tools / "bin/dpkg-deb", DPKG)
    unpack("armhf", ["python3", "python3-numpy"], folder)
    assert versions(folder) == {"python3": "1.21-1", "python3-numpy": "1.21-1"}


def test_a_source_is_unpacked_once_without_its_folder(tools: Path) -> None:
    (tools / "made-by-others").mkdir()
    (tools / "made-by-others/README").write_text("hello")
    made = source("x", tools / "made")
    assert made == tools / "made/sources/x"
    assert (made / "README").read_text() == "hello"
    asked = (tools / "asked").read_text().splitlines()
    assert asked[-1].endswith("source --download-only --tar-only x")
    assert [line.split()[0] for line in (tools / "made/sources.list").read_text().splitlines()] == ["deb", "deb-src"]
    assert source("x", tools / "made") == made
    assert (tools / "asked").read_text().splitlines() == asked


@pytest.mark.skipif(shutil.which("patch") is None, reason="needs patch")
def test_a_source_is_patched_as_debian_builds_it(tools: Path) -> None:
    (tools / "made-by-others").mkdir()
    (tools / "made-by-others/README").write_text("hello\n")
    (tools / "debian/patches").mkdir(parents=True)
    (tools / "debian/patches/series").write_text("a.patch\nb.diff\n")
    patch = "--- a/README\n+++ b/README\n@@ -1 +1 @@\n-{}\n+{}\n"
    (tools / "debian/patches/a.patch").write_text(patch.format("hello", "good morning"))
    (tools / "debian/patches/b.diff").write_text(patch.format("good morning", "good evening"))
    made = source("x", tools / "made", patched=True)
    assert (made / "README").read_text() == "good evening\n"
    assert "--tar-only" not in (tools / "asked").read_text()


def test_what_apt_says_is_told(tools: Path) -> None:
    script(tools / "bin/apt-get", "#!/bin/sh\necho 'E: Unable to locate package' >&2\nexit 100\n")
    with pytest.raises(RuntimeError, match=r"apt-get .*: E: Unable to locate package$"):
        unpack("armhf", ["python3"], tools / "made")
    assert not (tools / "made/packages.json").exists()


def test_the_first_mirror_of_this_machine_is_taken(tools: Path) -> None:
    assert mirror() == "http://mirror.example/debian"
    (tools / "asked").unlink()
    script(tools / "bin/apt-get", "#!/bin/sh\n")
    assert mirror() is None


def test_a_program_runs_by_the_emulator_with_its_variables(tools: Path) -> None:
    root = tools / "root"
    assert command("armhf", root, "usr/bin/python3", {"PYTHONPATH": "/a"}) == [
        str(tools / "bin/qemu-arm-static"),
        *("-L", str(root)),
        *("-E", "PYTHONPATH=/a"),
        str(root / "usr/bin/python3"),
    ]
    assert command("armhf", root, "/elsewhere/program")[-1] == "/elsewhere/program"


def test_the_missing_tool_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {"qemu-arm": "/usr/bin/qemu-arm"}
    monkeypatch.setattr(shutil, "which", found.get)
    assert emulator("armhf") == "/usr/bin/qemu-arm"
    assert "no apt-get" in str(missing_tools("armhf"))
    assert "apt-get install qemu-user-static" in str(missing_tools("arm64"))
    with pytest.raises(RuntimeError, match="no qemu-user for arm64"):
        command("arm64", Path("root"), "program")
