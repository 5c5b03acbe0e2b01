"""The page, built once and served on loopback with its headers, and tabs of a real headless Chromium that visit it."""

import json
import shutil
import socket
import subprocess
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock
from tests.conftest import REPOSITORY

import ortcam

WEB = REPOSITORY / "runtime" / "web"
SAMPLES = REPOSITORY / "models" / "shapes" / "samples"
SHIPPED = REPOSITORY / "models" / "shapes.ortcam"
WIDE = {"width": 1280, "height": 900}
PATIENCE = 60_000  # milliseconds; what is waited for takes a few seconds on two slow cores


@pytest.fixture(scope="session")
def node_modules(shared):
    """The folder of the page's dependencies, installed where they are not."""
    for tool in ("node", "npm", "make"):
        if shutil.which(tool) is None:
            pytest.skip(f"no {tool}, which builds the page")
    command = ["make", "--silent", "runtime/web/node_modules/.stamp"]
    with FileLock(shared / "page.lock"):
        done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"the page's dependencies cannot be installed: {done.stderr.strip()[-500:]}")
    return WEB / "node_modules"


class Site:
    """The built page: its folder, to which tests add bundles, and its address."""

    def __init__(self, folder, address):
        self.folder = folder
        self.address = address

    def add_bundle(self, name, source):
        return Path(shutil.copytree(source, self.folder / name))


@pytest.fixture(scope="session")
def site(node_modules, tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    vite = ["node", node_modules / "vite" / "bin" / "vite.js"]
    where = ["--outDir", folder]
    subprocess.run(
        [*vite, "build", *where, "--emptyOutDir", "--logLevel", "error"], cwd=WEB, check=True, capture_output=True
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [*vite, "preview", *where, "--port", str(port), "--strictPort"]
    with subprocess.Popen(command, cwd=WEB, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert any(str(port) in line for line in server.stdout), "the server did not start"
            yield Site(folder, f"http://127.0.0.1:{port}/")
        finally:
            server.terminate()


@pytest.fixture(scope="session")
def browser(chromium):
    api = pytest.importorskip("playwright.sync_api", reason="playwright drives the browser: pip install playwright")
    with api.sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        yield running
        running.close()


class Visit:
    """A tab on the page, with what it complained of and all that it asked for."""

    def __init__(self, tab, site):
        self.tab = tab
        self.site = site
        self.complaints = []
        self.requests = []
        tab.set_default_timeout(PATIENCE)
        tab.on("console", lambda said: said.type in ("error", "warning") and self.complaints.append(said.text))
        tab.on("pageerror", lambda error: self.complaints.append(str(error)))
        tab.on("requestfailed", lambda request: self.complaints.append(f"failed: {request.url}"))
        tab.on("request", lambda request: self.requests.append(request.url))

    def open(self, query="", state="empty"):
        self.tab.goto(self.site.address + query)
        self.wait(state)
        return self

    def wait(self, state):
        self.tab.wait_for_selector(f"html[data-state={state}]")

    def read(self, file, state="ready"):
        """Choose a file: a path, or a name and bytes; with no state it is one that is refused."""
        if isinstance(file, tuple):
            file = {"name": file[0], "mimeType": "image/jpeg", "buffer": file[1]}
        self.tab.set_input_files("#file", file)
        self.tab.wait_for_selector("#error:not([hidden])") if state is None else self.wait(state)
        return self

    def settings(self, method, *, percent=100, target=None, samples=None, seed=None, gate=None):
        self.tab.select_option("#method", method)
        for name, value in (("samples-count", samples), ("seed", seed), ("budget", percent)):
            if value is not None:
                self.tab.fill(f"#{name}", str(value))
        for name, value in (("gate", gate), ("target", target)):
            if value is not None:
                self.tab.select_option(f"#{name}", str(value))
        return self

    def explain(self, method, **settings):
        """The map as it is downloaded: float32 [H,W]."""
        self.settings(method, **settings)
        self.tab.click("#explain")
        self.wait("explained")
        return np.load(self.download("#save-map"))

    def download(self, button):
        with self.tab.expect_download() as download:
            self.tab.click(button)
        return Path(download.value.path())

    def manifest(self):
        return json.loads(self.download("#save-manifest").read_text("utf-8"))

    @property
    def error(self):
        return self.tab.inner_text("#error")


@pytest.fixture
def fresh(browser, site):
    """A tab that has not visited the page yet; it may complain of nothing."""
    context = browser.new_context(viewport=WIDE)
    visitor = Visit(context.new_page(), site)
    yield visitor
    context.close()
    assert visitor.complaints == []


@pytest.fixture(scope="session")
def shared_visit(browser, site):
    context = browser.new_context(viewport=WIDE)
    yield Visit(context.new_page(), site).open()
    context.close()


@pytest.fixture
def visit(shared_visit):
    """A tab on the page that tests take turns with, which shows that the page can go on; it may complain of nothing."""
    shared_visit.tab.emulate_media(color_scheme="light")
    yield shared_visit
    complaints = shared_visit.complaints.copy()
    shared_visit.complaints.clear()
    assert complaints == []


@pytest.fixture(scope="session")
def explainer():
    return ortcam.load(SHIPPED)
