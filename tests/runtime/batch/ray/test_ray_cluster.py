"""Ray that a batch starts or joins, and bundles that travel: nothing is left behind; errors are a sentence."""

import signal
import socket
import tempfile
from pathlib import Path

import psutil
import pytest

from ortcam.batch.job import RayOptions
from ortcam.bundle import read_bundle
from ortcam.bundle.shipped import bundle_path
from ortcam.errors import BundleError, OptionError, OrtcamError

pytestmark = pytest.mark.long


def test_addresses_without_a_cluster_are_refused_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    from ortcam.batch.ray.cluster import connected

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))  # and nobody listens
        nobody = f"127.0.0.1:{free.getsockname()[1]}"
        for address, words in {
            nobody: "Connection refused",
            "nonsense": "no cluster can be used there",
            "127.0.0.1:70000": "no cluster can be used there",
            "ray://127.0.0.1:1": "from elsewhere use `ray job submit`",
        }.items():
            with pytest.raises(OptionError, match=words) as raised, connected(RayOptions(address=address)):
                pass
            assert address in str(raised.value)
            assert "\n" not in str(raised.value)
        monkeypatch.setenv("RAY_ADDRESS", nobody)
        with pytest.raises(OptionError, match="Connection refused"), connected(RayOptions()):
            pass


def test_ray_that_is_started_ends_with_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    from ortcam.batch.ray.cluster import connected

    monkeypatch.delenv("RAY_ADDRESS", raising=False)

    def usage_is_told() -> bool:  # in here, so that it travels by value
        from ray._common.usage.usage_lib import usage_stats_enabled

        return bool(usage_stats_enabled())

    handler = signal.getsignal(signal.SIGTERM)
    place = Path(tempfile.mkdtemp(prefix="o", dir="/tmp"))  # short: sockets lie in it
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    before = set(psutil.Process().children(recursive=True))  # of other tests, such as a browser
    with connected(RayOptions()) as cluster:
        assert cluster.alone
        assert cluster.cpus >= 1
        assert list(place.glob("*/session_*"))
        processes = set(psutil.Process().children(recursive=True)) - before
        commands = [" ".join(process.cmdline()) for process in processes]
        assert any("gcs_server" in command for command in commands)
        assert signal.getsignal(signal.SIGTERM) is handler
        assert not ray.get(ray.remote(usage_is_told).options(num_cpus=0).remote())
    assert not ray.is_initialized()
    _, alive = psutil.wait_procs(processes, timeout=60)
    assert not alive
    assert list(place.iterdir()) == []
    place.rmdir()
    with pytest.raises(ray.exceptions.RaySystemError):  # and it does not start by itself
        ray.put(1)


def test_a_bundle_travels_where_its_folder_is_not_seen(
    tmp_path: Path, ray_here: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    import dataclasses

    from ortcam.batch.ray.cluster import Cluster

    bundle = read_bundle(bundle_path())
    shipped = Cluster(alone=False).ship(bundle.path, bundle.sha256)
    assert shipped.folder() == bundle.path.absolute()
    assert Cluster(alone=True).ship(bundle.path, bundle.sha256).content is None
    monkeypatch.setenv("ORTCAM_CACHE", str(tmp_path / "cache"))
    elsewhere = dataclasses.replace(shipped, path=tmp_path / "nowhere" / "shapes.ortcam")
    place = elsewhere.folder()
    assert place.is_relative_to(tmp_path / "cache")
    assert read_bundle(place).sha256 == bundle.sha256
    stamp = place.stat().st_ino
    assert elsewhere.folder().stat().st_ino == stamp  # it is unpacked once
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("ORTCAM_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(OrtcamError, match="the bundle cannot be put there"):
        elsewhere.folder()


def test_errors_of_workers_are_found_in_those_of_ray(ray_here: None) -> None:
    import ray

    from ortcam.batch.ray.cluster import ours

    @ray.remote(num_cpus=0)
    def fail() -> None:
        raise BundleError("it has changed")

    with pytest.raises(BundleError) as raised:
        ray.get(fail.remote())
    found = ours(raised.value)
    assert type(found) is BundleError
    assert str(found) == "it has changed"
    assert ours(ValueError("mine")) is None


def test_pages_of_ray_become_a_line() -> None:
    from ortcam.batch.ray.cluster import in_a_line

    assert in_a_line(RuntimeError("Version mismatch:\n    Ray: 2.60\n")) == "Version mismatch: Ray: 2.60"
    assert in_a_line(RuntimeError()) == "RuntimeError"
    assert len(in_a_line(RuntimeError("much " * 1000))) < 310
