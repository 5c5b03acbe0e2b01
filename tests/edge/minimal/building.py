"""ONNX Runtime from Debian's source, with the operators of a list alone."""

import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tests.edge import cpp, debian

__all__ = ["FLAGS", "FOLDER", "PREFIX", "build", "built", "missing", "unneeded"]

FOLDER: Final = cpp.FOLDER / "minimal"
PREFIX: Final = Path("opt/minimal")  # in the root of `build`: where the library is installed
# What a user gives ONNX Runtime's build.py, beside the list.
FLAGS: Final = (
    *("--config", "MinSizeRel", "--build_shared_lib", "--minimal_build"),
    *("--disable_ml_ops", "--enable_reduced_operator_type_support", "--skip_tests"),
)
_PACKAGES: Final = (
    *cpp.PACKAGES,
    *("libboost-dev", "libeigen3-dev", "libflatbuffers-dev", "libhowardhinnant-date-dev", "libmsgsl-dev"),
    *("libprotobuf-dev", "protobuf-compiler", "libre2-dev", "libsafeint-dev", "nlohmann-json3-dev"),
)
_TOOLS: Final = ("cmake>=3.28,<4", "ninja")  # Debian 12 has an older CMake
_KERNEL: Final = re.compile(r"KERNEL\w*\(\s*\"?(\w+)")  # the first argument of the macros that say whose a kernel is
_HERE: Final = Path(__file__).parent


def missing() -> str | None:
    """Why it cannot be built here; None where it can."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return f"this machine is {platform.machine()}: only x86_64 was tried"
    for tool in ("clang++", "ld.lld", "pkg-config", "xz", "patch"):
        if shutil.which(tool) is None:
            return f"no {tool}: apt-get install clang lld pkg-config xz-utils patch"
    return debian.missing_tools("amd64")


def built(operators: str) -> Path | None:
    """The root that `build` would return at once, for it has built this list already; or None."""
    root, record = FOLDER / "debian" / "root", FOLDER / "built.config"
    done = record.exists() and _listed(record.read_text()) == _listed(operators)
    return root if done and (root / PREFIX / "lib/libonnxruntime.so").exists() else None


def build(operators: str) -> Path:
    """Build and install the library, with two compilers at a time; about an hour on two cores.

    What an earlier call has fetched and compiled is kept.

    Args:
        operators: the text of `required_operators`.

    Returns:
        A root with Debian's packages, and in `PREFIX` the library.

    Raises:
        RuntimeError: something cannot be fetched, or does not compile; the message has what was said last.
    """
    if root := built(operators):
        return root
    FOLDER.mkdir(parents=True, exist_ok=True)
    root = debian.unpack("amd64", _PACKAGES, FOLDER / "debian")
    if not (root / "include").exists():  # Ninja shortens paths that Clang tells it, past links, and would not find them
        (root / "include").symlink_to("usr/include")
    runtime, *needed = (debian.source(name, FOLDER / "debian") for name in ("onnxruntime", "onnx", "protobuf"))
    needed.append(debian.source("abseil", FOLDER / "debian", patched=True))  # Debian's headers have more functions
    _suit_eigen(runtime / "onnxruntime/core/providers/cpu/math/element_wise_ops.cc")
    listed, made = FOLDER / "operators.config", FOLDER / "build"
    configured = listed.exists() and listed.read_text() == operators and (made / "MinSizeRel/build.ninja").exists()
    listed.write_text(operators)
    (FOLDER / "without.txt").write_text("\n".join(map(str, unneeded(runtime / "onnxruntime", operators))))
    step = ["--build"] if configured else ["--update", "--build"]
    tool = [sys.executable, str(runtime / "tools/ci_build/build.py"), "--build_dir", str(made), *step, *FLAGS]
    tool += ["--include_ops_by_config", str(listed), *_machinery(), "--cmake_extra_defines", *_settings(root, *needed)]
    _run(["nice", "-n", "5", *tool], FOLDER / "build.log")
    _run(["cmake", "--install", str(made / "MinSizeRel")], FOLDER / "install.log", {"DESTDIR": str(root)})
    shutil.copy(listed, FOLDER / "built.config")
    return root


def unneeded(source: Path, operators: str) -> list[Path]:
    """Sources of operators that a list does not have, and all of a folder that has none of the list."""
    lines = [line for line in operators.splitlines() if not line.startswith("#")]
    listed = {name for line in lines for name in re.sub(r"{.*?}}", "", line.split(";")[2]).split(",")}
    files = [path for folder in ("core/providers/cpu", "contrib_ops/cpu") for path in (source / folder).rglob("*.cc")]
    found = {path: set(_KERNEL.findall(path.read_text())) for path in files}
    needed = {path for path in files if found[path] & listed or path.stem.removesuffix("_op").capitalize() in listed}
    kept = {path.parent for path in needed}
    others = {path for path in files if path not in needed and (found[path] or path.parent not in kept)}
    return sorted(others - {source / "core/providers/cpu/cpu_provider_factory.cc"})  # which opens the provider


def _suit_eigen(source: Path) -> None:
    """Debian's Eigen 3.4.0 cannot be told what a minimum makes of NaN, as later ones can; here it may be anything."""
    text = source.read_text()
    older = re.sub(r"\.template (min|max)<Eigen::PropagateNaN>", r".\1", text)
    if older != text:  # a new time would have it compiled again
        source.write_text(older)


def _machinery() -> list[str]:
    """Flags of build.py that say with which programs, and that nothing is downloaded."""
    folder = _tools() / "bin"
    given = {"cmake_path": folder / "cmake", "cmake_generator": "Ninja", "path_to_protoc_exe": _protoc(), "parallel": 2}
    bare = ("--skip_submodule_sync", "--allow_running_as_root", "--compile_no_warning_as_error")
    return [*(part for name, value in given.items() for part in (f"--{name}", str(value))), *bare]


def _settings(root: Path, onnx: Path, protobuf: Path, abseil: Path) -> list[str]:
    """Settings of CMake: Clang with Debian's headers, and its static libraries in place of downloads."""
    nothing = FOLDER / "nothing"
    nothing.mkdir(exist_ok=True)
    settings = {
        "CMAKE_PROJECT_onnxruntime_INCLUDE": _HERE / "dependencies.cmake",
        "ORTCAM_HEADERS": root / "usr/include",
        "ORTCAM_LIBRARIES": root / "usr/lib" / debian.ARCHITECTURES["amd64"][0],
        "ORTCAM_ABSEIL": abseil,
        "ORTCAM_ONNX": onnx,
        "ORTCAM_PROTOBUF": protobuf,
        "ORTCAM_NOTHING": nothing,
        "ORTCAM_WITHOUT": FOLDER / "without.txt",
        "CMAKE_C_COMPILER": "clang",
        "CMAKE_CXX_COMPILER": "clang++",
        "CMAKE_SYSROOT": root,
        "CMAKE_SHARED_LINKER_FLAGS": "-fuse-ld=lld",
        "CMAKE_EXE_LINKER_FLAGS": "-fuse-ld=lld",
        "CMAKE_INSTALL_PREFIX": f"/{PREFIX}",
        "CMAKE_INSTALL_LIBDIR": "lib",
        "onnxruntime_ENABLE_CPUINFO": "OFF",
        "onnxruntime_BUILD_UNIT_TESTS": "OFF",
    }
    return [f"{name}={value}" for name, value in settings.items()]


def _protoc() -> Path:
    """Debian's compiler of Protocol Buffers, of the libraries' version, with Debian's own loader."""
    root, program = FOLDER / "debian" / "root", FOLDER / "protoc"
    if program.exists():  # a new time would have everything compiled again
        return program
    libraries = root / "usr/lib" / debian.ARCHITECTURES["amd64"][0]
    loader = next(libraries.glob("ld-linux*.so.*"))
    program.write_text(f'#!/bin/sh\nexec {loader} --library-path {libraries} {root}/usr/bin/protoc "$@"\n')
    program.chmod(0o755)
    return program


def _tools() -> Path:
    """A folder with CMake and Ninja, as PyPI has them."""
    made = FOLDER / "tools"
    if not (made / "bin/ninja").exists():
        install = [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--target", str(made), *_TOOLS]
        _run(install, FOLDER / "tools.log")
    return made


def _run(command: Sequence[str], log: Path, variables: dict[str, str] | None = None) -> None:
    tools = FOLDER / "tools"
    path = os.pathsep.join((str(tools / "bin"), os.environ["PATH"]))
    found = {"PATH": path, "PYTHONPATH": str(tools), "LC_ALL": "C", **(variables or {})}
    with log.open("w") as said:
        ran = subprocess.run(command, stdout=said, stderr=said, check=False, env={**os.environ, **found})
    if ran.returncode:
        raise RuntimeError(f"{' '.join(command[:4])} ...: {log.read_text()[-3000:].strip()}")


def _listed(operators: str) -> str:
    """A list without its comments, which say what wrote it."""
    return re.sub(r"^#.*\n", "", operators, flags=re.MULTILINE)
