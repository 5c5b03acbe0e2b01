"""`make audit`: no known advisory applies to what users install, at the tested versions or at the lowest admitted ones.

`uv` says which packages those are, `pip-audit` which advisories there are. One that does not harm ortcam's users, or
that applies to the lowest versions alone and that SECURITY.md warns of, is listed in pyproject.toml with its reason:

    [tool.audit.accepted]
    "CVE-2030-1234" = "of the hub, which ortcam does not use"
"""

import argparse
import json
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

__all__ = ["Report", "ask", "main", "verdict"]

_REPOSITORY: Final = Path(__file__).parents[2]
_EXTRAS: Final = ("cpu", "export", "evaluate", "plot", "serve", "sign", "batch", "ray", "completion")
_SERVICES: Final = ("pypi", "osv")


@dataclass(frozen=True)
class Report:
    """What a source of advisories said.

    Attributes:
        advisories: of (package, version, names of the advisory, versions that mend it).
        unknown: packages that the source does not know, with its reason.
        audited: how many packages it knows.
    """

    advisories: tuple[tuple[str, str, tuple[str, ...], tuple[str, ...]], ...]
    unknown: tuple[str, ...]
    audited: int


def main(arguments: list[str] | None = None) -> int:
    """Audit; returns the exit code."""
    parser = argparse.ArgumentParser(description="Look for known advisories against what users install.")
    parser.add_argument("--skip-unreachable", action="store_true", help="end with 0 where no source can be reached")
    parser.add_argument("--osv-url", help="ask this address, of a service like OSV's, and no other source")
    options = parser.parse_args(arguments)
    accepted = tomllib.loads((_REPOSITORY / "pyproject.toml").read_text("utf-8"))["tool"]["audit"]["accepted"]
    packages = sorted({*_packages("--constraint", "constraints.txt"), *_packages("--resolution", "lowest-direct")})
    report = ask(packages, options.osv_url)
    if report is None:
        print("audit: no source of advisories can be reached from here, so nothing was audited")
        return 0 if options.skip_unreachable else 1
    wrong = verdict(report, accepted)
    for line in wrong:
        print(f"audit: {line}")
    print(f"audit: {report.audited} packages audited, {len(report.advisories)} advisories, {len(wrong)} to look at")
    return 1 if wrong else 0


def verdict(report: Report, accepted: Mapping[str, str]) -> list[str]:
    """What is to be done about a report, a line each; empty where all is well.

    Args:
        report: of everything that users install.
        accepted: name of an advisory -> why it does not harm.
    """
    lines = []
    for package, version, names, fixed in report.advisories:
        if not accepted.keys() & set(names):
            mended = f"mended in {', '.join(fixed)}" if fixed else "not mended yet"
            lines.append(
                f"{package} {version}: {', '.join(names)}, {mended}; raise the bound, or say why it is harmless"
            )
    known = {name for _, _, names, _ in report.advisories for name in names}
    lines += [
        f"{name} is accepted, but applies to nothing any more; remove it" for name in accepted if name not in known
    ]
    return lines + [f"not audited: {reason}" for reason in report.unknown]


def _packages(*options: str) -> list[str]:
    """`name==version` of all that is installed for users, as uv resolves it."""
    extras = [part for extra in _EXTRAS for part in ("--extra", extra)]
    command = ["pip", "compile", "--quiet", "--no-header", "--no-annotate", *extras, *options, "pyproject.toml"]
    done = _run("uv", *command)
    if done.returncode:
        sys.exit(f"audit: uv cannot tell what is installed: {done.stderr.strip()}")
    return [line.split(";")[0].strip() for line in done.stdout.splitlines() if "==" in line]


def ask(packages: Sequence[str], osv_url: str | None) -> Report | None:
    """The report of the first source that knows a package; None where none can be reached.

    A version that is only among the lowest ones would be a conflict in one file of requirements: each goes into the
    first file that has no other version of its package.
    """
    services = [("osv", "--osv-url", osv_url)] if osv_url else [(service,) for service in _SERVICES]
    for service in services:
        reports = [_ask_once(part, service) for part in _without_conflicts(packages)]
        found = [report for report in reports if report is not None and report.audited]
        if len(found) == len(reports):
            return Report(
                tuple(advisory for report in found for advisory in report.advisories),
                tuple(reason for report in found for reason in report.unknown),
                sum(report.audited for report in found),
            )
    return None


def _without_conflicts(packages: Sequence[str]) -> list[dict[str, str]]:
    files: list[dict[str, str]] = []
    for package in packages:
        name, _, version = package.partition("==")
        free = next((file for file in files if name not in file), None)
        if free is None:
            free = {}
            files.append(free)
        free[name] = version
    return files


def _ask_once(packages: Mapping[str, str], service: Sequence[str]) -> Report | None:
    with tempfile.TemporaryDirectory() as folder:
        requirements = Path(folder, "requirements.txt")
        requirements.write_text("".join(f"{name}=={version}\n" for name, version in packages.items()))
        options = ("--no-deps", "--disable-pip", "--format", "json", "--desc", "off", "--progress-spinner", "off")
        done = _run("pip_audit", "--requirement", str(requirements), *options, "--vulnerability-service", *service)
    return _report(done.stdout)


def _report(text: str) -> Report | None:
    """What pip-audit's JSON says; None where it wrote none, as it does when its source cannot be reached."""
    try:
        dependencies: list[dict[str, Any]] = json.loads(text)["dependencies"]
    except (ValueError, KeyError):
        return None
    return Report(
        tuple(
            (item["name"], item["version"], (found["id"], *found.get("aliases", ())), tuple(found["fix_versions"]))
            for item in dependencies
            for found in item.get("vulns", ())
        ),
        tuple(item["skip_reason"] for item in dependencies if "skip_reason" in item),
        sum("skip_reason" not in item for item in dependencies),
    )


def _run(module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", module, *arguments]
    return subprocess.run(command, cwd=_REPOSITORY, capture_output=True, text=True, check=False)


if __name__ == "__main__":
    sys.exit(main())
