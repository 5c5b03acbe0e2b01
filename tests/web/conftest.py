"""The page that comes with ortcam, served as `ortcam web` serves it, and tabs of a headless Chromium that visit it."""

import base64
import json
import shutil
import subprocess
import threading
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock
from tests.conftest import REPOSITORY

import ortcam
from ortcam.bundle import read_bundle
from ortcam.web.server import PageServer
from ortcam.web.site import Resource, Site, site_of

WEB = REPOSITORY / "runtime" / "web"
SAMPLES = REPOSITORY / "models" / "shapes" / "samples"
SHIPPED = REPOSITORY / "models" / "shapes.ortcam"
WIDE = {"width": 1280, "height": 900}
PATIENCE = 120_000  # milliseconds; what is waited for takes a few seconds on two slow cores


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


MODULES = (
    *("images/preprocessing", "images/colormaps", "images/rendering", "engine/cut", "engine/onnx_outputs"),
    *("images/npy", "images/picture", "images/png", "images/stretching", "engine/manifest", "page/words"),
    *("scoring/upsampling", "scoring/masks", "scoring/noise", "scoring/gates", "scoring/linear_algebra"),
    *("scoring/gaussian_process", "methods/gradient", "methods/recipro", "methods/auto", "server/events"),
    *("camera/camera", "camera/loop", "scoring/memory", "request/score"),
)
TYPES = {"Float32Array": np.float32, "Float64Array": np.float64, "Uint8Array": np.uint8}
RUN = """
import { readFileSync } from "node:fs";
const { modules, body, given } = JSON.parse(readFileSync(0, "utf8"));
const own = Object.assign({}, ...(await Promise.all(modules.map((module) => import(module)))));
const arrays = Object.fromEntries(Object.entries(given).map(([name, { type, data }]) => {
  const bytes = Uint8Array.from(Buffer.from(data, "base64"));
  return [name, new globalThis[type](bytes.buffer)];
}));
const AsyncFunction = (async () => {}).constructor;
const out = await new AsyncFunction("own", "given", body)(own, arrays);
console.log(JSON.stringify(Object.entries(out).map(([name, array]) => {
  const typed = ArrayBuffer.isView(array) ? array : Float64Array.from(array);
  const bytes = Buffer.from(typed.buffer, typed.byteOffset, typed.byteLength);
  return [name, typed.constructor.name, bytes.toString("base64")];
})));
"""


@pytest.fixture(scope="session")
def call(node_modules, tmp_path_factory):
    """A function that runs a piece of JavaScript with modules (`own`) and arrays (`given`), and returns its arrays.

    It takes names of modules, several as "first second".
    """
    folder = tmp_path_factory.mktemp("modules")
    entries = [f"src/{name}.ts" for name in MODULES]
    bundle = ["node", node_modules / "rolldown" / "bin" / "cli.mjs", *entries, "--dir", folder, "--platform", "node"]
    subprocess.run(bundle, cwd=WEB, check=True, capture_output=True)
    (folder / "package.json").write_text('{"type": "module"}', "utf-8")
    script = folder / "run.mjs"
    script.write_text(RUN, "utf-8")

    def run(modules, body, **given):
        names = {
            np.dtype(np.uint8): "Uint8ClampedArray",
            np.dtype(np.float32): "Float32Array",
            np.dtype(np.float64): "Float64Array",
        }
        arrays = {
            name: {"type": names[array.dtype], "data": base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()}
            for name, array in given.items()
        }
        paths = [str(folder / f"{module}.js") for module in modules.split()]
        asked = json.dumps({"modules": paths, "body": body, "given": arrays})
        done = subprocess.run(["node", script], input=asked, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return {
            name: np.frombuffer(base64.b64decode(data), TYPES[kind]) for name, kind, data in json.loads(done.stdout)
        }

    return run


class Served:
    """The page, its address, and bundles that tests lay beside it."""

    def __init__(self, server, folder):
        self.address = server.url
        self._resources = server.site.resources
        self._folder = folder

    def add_bundle(self, name, source):
        folder = Path(shutil.copytree(source, self._folder / name))
        for path in folder.iterdir():
            self._resources[f"{name}/{path.name}"] = Resource(path, "application/octet-stream")
        return folder


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    made = site_of([("shapes", read_bundle(SHIPPED))])
    with PageServer(Site(dict(made.resources), made.headers)) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield Served(server, tmp_path_factory.mktemp("bundles-beside-the-page"))
        server.shutdown()
        thread.join()


@pytest.fixture(scope="session")
def browser(playwright, chromium):
    running = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
    yield running
    running.close()


# Milliseconds before a download: Chromium drops those of a page beyond ten in a second, and the fast methods get there.
DOWNLOAD_PAUSE = 150
# Sets controls without a word of it, and says by an event of one of them that something changed.
SET = """([values, target]) => {
  for (const [id, value] of Object.entries(values)) document.getElementById(id).value = value;
  const row = document.querySelector(`#classes input[value="${target}"]`);
  if (row !== null) row.checked = true;
  const { dataset } = document.body; // waiting for a property would need an eval, which the page's policy refuses
  dataset.explained = false;
  document.addEventListener("ortcam-explained", () => (dataset.explained = true), { once: true });
  if (document.documentElement.dataset.state === "explained") {
    (row ?? document.getElementById("until")).dispatchEvent(new Event("change", { bubbles: true }));
  }
}"""


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

    def expect_explanation(self):
        """Note the next explanation, for `wait_until`; a property would need an eval, which is refused."""
        self.tab.evaluate(
            "() => { const { dataset } = document.body; dataset.explained = false;"
            "document.addEventListener('ortcam-explained', () => (dataset.explained = true), { once: true }) }"
        )

    def wait_until(self, what):
        self.tab.wait_for_selector(f"body[data-{what}=true]")

    def choose(self, file):
        """Choose a file: a path, or a name and bytes."""
        if isinstance(file, tuple):
            file = {"name": file[0], "mimeType": "image/jpeg", "buffer": file[1]}
        self.tab.set_input_files("#file", file)

    def refused(self, file):
        """What the page says to a file that it does not take."""
        self.choose(file)
        self.tab.wait_for_selector("#error:not([hidden])")
        return self.error

    def explain(self, file, method="scorecam", **settings):
        """The map of an image's likeliest class, as it is downloaded: float32 [H,W]. No pass is made before."""
        self.tab.evaluate(
            "() => { const { dataset } = document.documentElement;"
            "if (dataset.state === 'explained') dataset.state = 'empty' }"
        )
        self.set_options(method, **settings)
        self.choose(file)
        return self._map()

    def explain_again(self, method="scorecam", *, target=None, **settings):
        """The map after the settings were changed."""
        self.set_options(method, target=target, **settings)
        return self._map()

    def set_options(self, method, *, percent=3, until=None, target=None, samples=None, seed=None, gate=None):
        values = {
            "method": method,
            "until": until or ("budget" if percent < 100 else "exact"),
            "budget": percent,
            "samples-count": samples,
            "seed": seed,
            "gate": gate,
        }
        self.tab.evaluate(SET, [{name: str(value) for name, value in values.items() if value is not None}, target])

    def _map(self):
        self.wait_until("explained")
        self.wait("explained")
        return np.load(self.download("#save-map"))

    def download(self, button):
        self.tab.evaluate("document.getElementById('advanced').open = true")
        self.tab.wait_for_timeout(DOWNLOAD_PAUSE)
        with self.tab.expect_download() as download:
            self.tab.click(button)  # a real click: browsers throttle downloads that nobody asked for
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
