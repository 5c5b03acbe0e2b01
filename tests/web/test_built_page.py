"""The page that comes with ortcam is what its source builds."""

import gzip
import hashlib
import json
import os
import subprocess

import pytest
from tests.web.conftest import WEB

from ortcam.web.site import page_folder


def test_the_page_was_built_from_the_sources_that_are_here():
    recorded = json.loads((page_folder() / "sources.json").read_text("utf-8"))
    here = [path for folder in ("src", "public") for path in (WEB / folder).rglob("*") if path.is_file()]
    names = ("index.html", "package.json", "package-lock.json", "tsconfig.json", "vite.config.ts")
    found = {
        path.relative_to(WEB).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in [*here, *(WEB / name for name in names)]
    }
    changed = {name for name in found.keys() | recorded.keys() if found.get(name) != recorded.get(name)}
    assert not changed, f"{sorted(changed)} changed since the page was built: `make page` builds it again"


def contents(folder):
    """Path -> content, what is compressed as it is inside."""
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    return {name: gzip.decompress(data) if name.endswith(".gz") else data for name, data in files.items()}


@pytest.mark.long
def test_the_sources_build_that_page(node_modules, tmp_path):
    command = ["npm", "run", "--silent", "page", "--", "--logLevel", "error"]
    environment = os.environ | {"ORTCAM_PAGE": str(tmp_path / "page")}
    subprocess.run(command, cwd=WEB, env=environment, check=True, capture_output=True)
    built, shipped = contents(tmp_path / "page"), contents(page_folder())
    assert built.keys() == shipped.keys()
    assert [name for name in built if built[name] != shipped[name]] == []


@pytest.mark.long
def test_a_bundle_beside_the_page_survives_a_rebuild_and_is_offered(node_modules, tmp_path):
    folder = tmp_path / "dist"
    (folder / "mine.ortcam").mkdir(parents=True)
    (folder / "mine.ortcam" / "bundle.json").write_text("{}", "utf-8")
    (folder / "assets").mkdir()
    (folder / "assets" / "old.js").write_text("", "utf-8")
    command = ["npm", "run", "--silent", "build", "--", "--logLevel", "error"]
    subprocess.run(command, cwd=WEB, env=os.environ | {"ORTCAM_PAGE": str(folder)}, check=True, capture_output=True)
    assert (folder / "mine.ortcam" / "bundle.json").read_text("utf-8") == "{}"
    assert not (folder / "assets" / "old.js").exists()
    site = json.loads((folder / "site.json").read_text("utf-8"))
    assert [bundle["address"] for bundle in site["bundles"]] == ["shapes.ortcam/", "mine.ortcam/"]
