"""docs/deploy for `ortcam batch`: the commands of Kubernetes' jobs, of KubeRay's, and the script for Slurm, for real.

What stands in: an S3 server on this machine for the bucket, two Ray nodes on this machine for the cluster, and two
commands that do what Slurm's would on one machine.
"""

import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pyarrow.dataset
import pytest
import yaml
from tests.common.drawings import draw_images
from tests.common.object_stores import ObjectStore, object_store
from tests.conftest import REPOSITORY
from tests.foreign.ray_clusters import Cluster, cluster, free_ports, ray_environment
from tests.foreign.test_deployment_files import containers, image
from tests.runtime.serve.faults.server import PATIENCE

from ortcam.bundle.shipped import bundle_path

pytestmark = pytest.mark.long

DEPLOY = REPOSITORY / "docs" / "deploy"
PAGE = (REPOSITORY / "docs" / "how-to" / "batch-on-ray.md").read_text("utf-8")
BLOCKS = re.findall(
    r"tests/foreign/test_batch_jobs.py runs (\w+)[^\n]*\n```sh\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL
)
IMAGES = 8


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photographs")
    draw_images(folder, IMAGES)
    return folder


@pytest.fixture
def store(images: Path) -> Iterator[ObjectStore]:
    files = {path.relative_to(images).as_posix(): path for path in images.rglob("*.*")}
    with object_store(files) as found:
        yield found


@pytest.fixture(scope="module")
def bin_(foreign: Path) -> Path:
    return foreign.parent


def run(command: list[str], environment: dict[str, str], folder: Path) -> str:
    done = subprocess.run(
        command, env=environment, cwd=folder, capture_output=True, text=True, timeout=5 * PATIENCE, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def here(command: str) -> str:
    """With the bundle that there is."""
    return re.sub(r"\S*resnet18\.ortcam", str(bundle_path()), command)


def check(store: ObjectStore, place: str = "archive/maps") -> dict[str, bytes]:
    """All images are there once; gives the parts."""
    found = {path: store.files.cat_file(path) for path in store.files.glob(f"{place}/*.parquet")}
    table = pyarrow.dataset.dataset(sorted(found), format="parquet", filesystem=store.files).to_table()
    assert len(set(table["id"].to_pylist())) == table.num_rows == IMAGES
    assert table["error"].null_count == IMAGES
    return found


@pytest.mark.parametrize("number", [0, 1], ids=["job", "cron-job"])
def test_a_job_of_kubernetes_runs_and_is_run_again(number: int, store: ObjectStore, tmp_path: Path) -> None:
    documents = [*yaml.safe_load_all((DEPLOY / "batch-job.yaml").read_text("utf-8"))]
    (container,) = containers(documents[number])
    entry = json.loads(image("batch")["ENTRYPOINT"])
    command = [str(Path(sys.executable).parent / entry[0]), *entry[1:], *map(here, container["args"])]
    run(command, store.environment(), tmp_path)
    parts = check(store)
    run(command, store.environment(), tmp_path)
    assert check(store) == parts, "nothing was left to do"


@pytest.fixture
def ray(bin_: Path, store: ObjectStore) -> Iterator[Cluster]:
    with cluster(bin_, store.environment()) as found:
        yield found


@pytest.mark.cluster
def test_ray_jobs_run_on_a_cluster_whose_head_has_no_cpus(ray: Cluster, store: ObjectStore, tmp_path: Path) -> None:
    (job,) = yaml.safe_load_all((DEPLOY / "ray-job.yaml").read_text("utf-8"))
    environment = dict(ray.environment)
    submit = ["ray", "job", "submit", "--address", ray.dashboard, "--"]
    entry = shlex.split(here(job["spec"]["entrypoint"]).replace("--cpus-per-actor 2", "--cpus-per-actor 1"))
    run([str(_beside(environment, "ray")), *submit[1:], *entry], environment, tmp_path)
    parts = check(store)
    on_a_node, from_outside = (text for kind, text in BLOCKS if kind == "it")
    run(["bash", "-euc", here(from_outside).replace("http://127.0.0.1:8265", ray.dashboard)], environment, tmp_path)
    assert check(store) == parts, "nothing was left to do"
    elsewhere = here(on_a_node).replace("s3://archive/maps", "s3://archive/again")
    run(["bash", "-euc", elsewhere.replace("auto", ray.address)], environment, tmp_path)
    check(store, "archive/again")


SCONTROL = '#!/bin/sh\n[ "$1 $2 $3" = "show hostnames node[1-2]" ] && printf "127.0.0.1\\n127.0.0.1\\n"\n'
SRUN = '#!/bin/sh\nwhile [ "${1#--}" != "$1" ]; do shift; done\nexec "$@"\n'


@pytest.mark.cluster
def test_the_script_for_slurm_runs_on_all_nodes_of_its_job(bin_: Path, images: Path, tmp_path: Path) -> None:
    script = (DEPLOY / "slurm.sh").read_text("utf-8")
    (block,) = (text for kind, text in BLOCKS if kind == "the")
    arguments = shlex.split(block)[2:]
    arguments[:3] = [str(bundle_path()), str(images), str(tmp_path / "maps")]
    tools = tmp_path / "tools"
    tools.mkdir()
    for name, text in (("scontrol", SCONTROL), ("srun", SRUN)):
        (tools / name).write_text(text)
        (tools / name).chmod(0o755)
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True) as name:
        environment = ray_environment(bin_, Path(name), {})
        environment["PATH"] = f"{tools}{os.pathsep}{environment['PATH']}"
        slurm = {"SLURM_JOB_NODELIST": "node[1-2]", "SLURM_CPUS_PER_TASK": "1", "RAY_PORT": str(free_ports(1)[0])}
        run(["bash", str(DEPLOY / "slurm.sh"), *arguments], environment | slurm, tmp_path)
    assert re.findall(r"^#SBATCH --(\w+)", script, re.MULTILINE)
    table = pyarrow.dataset.dataset(tmp_path / "maps", format="parquet").to_table()
    assert len(set(table["id"].to_pylist())) == IMAGES


def _beside(environment: dict[str, str], name: str) -> Path:
    return Path(environment["PATH"].partition(os.pathsep)[0]) / name
