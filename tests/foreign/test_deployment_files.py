"""The files of docs/deploy: schemas, agreement with the server's defaults, and the image's steps without Docker."""

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.conftest import REPOSITORY
from tests.foreign.conftest import run_client
from tests.runtime.serve.faults.server import PATIENCE, serving

from ortcam.bundle.shipped import bundle_path, demo_image
from ortcam.serve.settings import Settings

DEPLOY = REPOSITORY / "docs" / "deploy"
MANIFESTS = sorted(DEPLOY.glob("*.yaml"))
SERVING = [DEPLOY / "inference-service.yaml", DEPLOY / "kubernetes.yaml"]
INSTRUCTION = re.compile(r"^([A-Z]+) ((?:.*\\\n)*.*)$", re.MULTILINE)


def documents(paths: list[Path]) -> list[dict[str, Any]]:
    return [document for path in paths for document in yaml.safe_load_all(path.read_text("utf-8"))]


def containers(value: Any) -> list[dict[str, Any]]:
    """All containers of a document."""
    if isinstance(value, list):
        return [found for item in value for found in containers(item)]
    if not isinstance(value, dict):
        return []
    inner = [found for key, item in value.items() if key != "containers" for found in containers(item)]
    return inner + value.get("containers", [])


def image(target: str | None = None) -> dict[str, str]:
    """The last instruction of each kind of a stage of the Dockerfile.

    Args:
        target: of `docker build --target`; None: the last stage.
    """
    text = re.sub(r"^#.*\n", "", (DEPLOY / "Dockerfile").read_text("utf-8"), flags=re.MULTILINE)
    stages = [f"FROM {stage}" for stage in re.split(r"^FROM ", text, flags=re.MULTILINE)[1:]]
    names = [stage.splitlines()[0].rpartition(" AS ")[2] for stage in stages]
    stage = stages[-1] if target is None else stages[names.index(target)]
    return {name: value.replace("\\\n", " ") for name, value in INSTRUCTION.findall(stage)}


@pytest.mark.long
def test_manifests_fit_the_schemas_of_kubernetes_and_kserve(foreign: Path, tmp_path: Path) -> None:
    assert run_client(foreign, "schemas.py", *MANIFESTS) == ""
    worse = tmp_path / "worse.yaml"
    for path in MANIFESTS:
        worse.write_text(path.read_text("utf-8").replace("securityContext", "safetyContext"))
        assert "safetyContext" in run_client(foreign, "schemas.py", worse), "the check sees what no schema has"
    worse.write_text((DEPLOY / "ray-job.yaml").read_text("utf-8").replace("backoffLimit: 3", "backoffLimit: many"))
    assert run_client(foreign, "schemas.py", worse) == "worse.yaml: RayJob.spec.backoffLimit: 'many' is no int\n"


def test_pods_have_longer_to_end_than_the_server_takes_to_drain() -> None:
    (pod,) = [
        document["spec"]["template"]["spec"] for document in documents(SERVING) if document["kind"] == "Deployment"
    ]
    (container,) = pod["containers"]
    arguments = container["args"]
    drain = float(arguments[arguments.index("--drain-seconds") + 1])
    assert drain == Settings.drain_seconds
    _, pause = container["lifecycle"]["preStop"]["exec"]["command"]
    assert pod["terminationGracePeriodSeconds"] > drain + float(pause) + 5, "5 seconds to close connections"


def test_containers_have_no_privileges_and_limits() -> None:
    found = [container for document in documents(MANIFESTS) for container in containers(document)]
    images = sorted(container["image"] for container in found)
    assert images == [*["ortcam"] * 3, *["ortcam-batch"] * 2, *["ortcam-ray"] * 2]
    for container in found:
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert {"cpu", "memory"} <= container["resources"]["limits"].keys()


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that every user may read; pytest's own are for one user alone."""
    with tempfile.TemporaryDirectory(prefix="ortcam-image-", dir="/tmp") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.mark.long
def test_the_image_runs_by_its_own_steps_without_root(place: Path) -> None:
    """Builds the wheel of what the build context holds, installs it alone, and starts it as the image would."""
    context, wheels, environment, models, empty = (
        place / name for name in ("context", "wheels", "environment", "models", "empty")
    )
    steps = image()
    entry, health = (json.loads(steps[name].rpartition("CMD ")[2]) for name in ("ENTRYPOINT", "HEALTHCHECK"))
    _copy_context(context)
    base, user = _python_and_user(*map(int, steps["USER"].split(":")))
    python = str(environment / "bin" / "python")
    uv = [sys.executable, "-m", "uv"]
    _install([*uv, "build", "--quiet", "--wheel", "--out-dir", str(wheels), str(context)])
    _run([*uv, "venv", "--quiet", "--python", base, str(environment)])
    (wheel,) = wheels.glob("ortcam-*.whl")
    install = [*uv, "pip", "install", "--quiet", "--python", python, "--constraint", str(context / "constraints.txt")]
    _install([*install, f"{wheel}[cpu,serve]"])
    shutil.copytree(bundle_path(), models / "shapes.ortcam")
    empty.mkdir()
    if user:
        os.chown(empty, user["user"], user["group"])
    variables = dict(re.findall(r"(\w+)=(\S+)", steps["ENV"])) | {"PATH": f"{environment / 'bin'}:{os.environ['PATH']}"}
    assert variables["ORTCAM_CACHE"] == "/tmp/ortcam"
    variables["ORTCAM_CACHE"] = str(empty / "ortcam")
    here = [str(models), "--host", "127.0.0.1", "--port", "0"]
    command = [str(environment / "bin" / entry[0]), *entry[1:], *here]
    with subprocess.Popen(command, cwd="/", env=variables, stdout=subprocess.PIPE, text=True, **user) as process:
        try:
            assert process.stdout is not None
            address = re.match(r"http://\S+", process.stdout.readline())
            assert address is not None
            probe = [python, *(part.replace("http://127.0.0.1:8080", address[0]) for part in health[1:])]
            end = time.monotonic() + PATIENCE
            while subprocess.run(probe, env=variables, capture_output=True, check=False).returncode:
                assert process.poll() is None
                assert time.monotonic() < end, "the health check of the image never succeeds"
            assert json.loads(_run(["curl", "-sf", f"{address[0]}/v1/models"])) == {"models": ["shapes"]}
            explain = f"{address[0]}/v1/models/shapes:explain"
            found = json.loads(_run(["curl", "-sf", "--data-binary", f"@{demo_image()}", explain]))
            assert found["explanations"][0]["targets"][0]["label"] == "umbrella"
            process.terminate()
            assert process.wait(PATIENCE) == 0, "SIGTERM ends it well"
        finally:
            process.kill()


# What KServe adds to the arguments of an explainer.
ADDED = ["--model_name", "classifier", "--predictor_host", "classifier-predictor.default", "--http_port", "8080"]


@pytest.mark.long
@pytest.mark.parametrize(
    ("number", "added", "names"),
    [(0, [], ["resnet18"]), (1, ADDED, ["classifier"]), (2, [], ["shapes"])],
    ids=["predictor", "explainer", "deployment"],
)
def test_a_container_of_the_manifests_starts_and_answers_its_probes(
    number: int, added: list[str], names: list[str], tmp_path: Path
) -> None:
    container = [container for document in documents(SERVING) for container in containers(document)][number]
    arguments = [*container.get("args", []), *added]
    with serving(tmp_path, bundle_path(), *arguments) as server:
        probes = [value["httpGet"]["path"] for key, value in container.items() if key.endswith("Probe")]
        assert probes or number == 1, "KServe has probes of its own for an explainer"
        for path in [*probes, *(f"/v1/models/{name}" for name in names)]:
            assert server.ask(path).status == 200
        assert server.ask("/v1/models").json() == {"models": names}
        answer = server.ask(f"/v1/models/{names[0]}:explain", demo_image().read_bytes())
        assert answer.json()["explanations"][0]["targets"][0]["label"] == "umbrella"


def test_the_image_listens_to_others_whatever_its_arguments() -> None:
    steps = image()
    assert json.loads(steps["ENTRYPOINT"]) == ["ortcam", "serve", "--host", "0.0.0.0"]
    assert "CMD" not in steps, "it would be left out where somebody gives arguments"
    assert f"127.0.0.1:{Settings.port}/" in steps["HEALTHCHECK"]
    assert steps["EXPOSE"] == str(Settings.port)


def test_the_images_install_extras_that_there_are() -> None:
    extras = re.findall(r"\.whl\)\[([\w,]+)\]", (DEPLOY / "Dockerfile").read_text("utf-8"))
    assert extras == ["cpu,ray", "cpu,batch", "cpu,serve"]
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))["project"]
    assert set(",".join(extras).split(",")) <= project["optional-dependencies"].keys()


def test_ray_has_one_version_in_all_files() -> None:
    (job,) = documents([DEPLOY / "ray-job.yaml"])
    version = job["spec"]["rayClusterSpec"]["rayVersion"]
    assert f"\nFROM rayproject/ray:{version}-py312 AS ray\n" in (DEPLOY / "Dockerfile").read_text("utf-8")
    assert f"\nray=={version}" in (REPOSITORY / "constraints.txt").read_text("utf-8"), "the image keeps its own Ray"


def _copy_context(place: Path) -> None:
    """What the Dockerfile's .dockerignore lets into the build."""
    lines = (DEPLOY / "Dockerfile.dockerignore").read_text("utf-8").splitlines()
    left_out = [line.removeprefix("**/") for line in lines if line.startswith("**/")]
    for name in (line[1:] for line in lines if line.startswith("!")):
        path = REPOSITORY / name
        if path.is_dir():
            shutil.copytree(path, place / name, ignore=shutil.ignore_patterns(*left_out))
        else:
            place.mkdir(exist_ok=True)
            shutil.copy(path, place / name)
    for name in (line for line in lines if not line.startswith(("!", "*", "#"))):
        shutil.rmtree(place / name)


def _python_and_user(user: int, group: int) -> tuple[str, dict[str, Any]]:
    """A Python for the environment, and arguments of Popen: the image's user, where this process may be another one."""
    usual = str(Path(sys.base_prefix) / "bin" / "python3")
    if os.geteuid() != 0:
        return usual, {}
    unprivileged: dict[str, Any] = {"user": user, "group": group, "extra_groups": []}
    for python in (usual, "/usr/local/bin/python3", "/usr/bin/python3"):
        # One under root's home is for root alone.
        with contextlib.suppress(OSError):
            check = "import sys, venv; sys.exit(sys.version_info < (3, 11))"
            if subprocess.run([python, "-c", check], cwd="/", check=False, **unprivileged).returncode == 0:
                return python, unprivileged
    return usual, {}


def _install(command: list[str]) -> None:
    """Run what takes packages from an index, or from uv's cache of it; with neither, the test skips."""
    done = subprocess.run(command, cwd="/", capture_output=True, text=True, timeout=5 * PATIENCE, check=False)
    if done.returncode and re.search("failed to fetch|error sending request|dns error", done.stderr, re.IGNORECASE):
        pytest.skip("no package index")
    assert done.returncode == 0, done.stderr


def _run(command: list[str]) -> str:
    done = subprocess.run(command, cwd="/", capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout
