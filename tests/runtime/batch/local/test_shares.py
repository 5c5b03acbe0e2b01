"""Cores and GPUs are shared among processes."""

import pytest

from ortcam.batch.local.cores import memory_of, share_gpus, share_machine, visible_gpus


@pytest.mark.parametrize(
    ("processes", "threads", "found"),
    [
        (None, None, (8, 1)),
        (3, None, (3, 2)),
        (None, 3, (2, 3)),
        (None, 16, (1, 16)),
        (12, None, (12, 1)),
        (5, 4, (5, 4)),
    ],
)
def test_processes_and_threads_fill_the_cores_unless_both_are_given(processes, threads, found):
    shares = share_machine(processes, threads, providers=["cpu"], cores=8)
    assert (shares.processes, shares.threads) == found
    assert set(shares.devices) == {None}
    assert shares.decode_ahead == (shares.threads > 1)


def test_where_memory_is_short_there_are_fewer_processes_with_more_threads(tmp_path):
    (tmp_path / "scorer.onnx").write_bytes(bytes(1000))
    assert memory_of(tmp_path) > 4000
    shares = share_machine(providers=["cpu"], cores=8, memory_each=1 << 60)
    assert (shares.processes, shares.threads) == (1, 8)
    assert share_machine(3, providers=["cpu"], cores=8, memory_each=1 << 60).processes == 3
    assert share_machine(providers=["cpu"], cores=8, memory_each=1).processes == 8


def test_gpus_are_shared_in_turn():
    assert share_gpus(None, 3) == (0, 1, 2)
    assert share_gpus(5, 2) == (0, 1, 0, 1, 0)
    assert share_gpus(None, 1) == (None,)
    assert share_gpus(3, 4, named=True) == (None, None, None)


@pytest.mark.parametrize(("named", "count"), [("0,1,2", 3), ("GPU-7a,GPU-9c", 2), ("", 0), ("-1", 0), ("1,-1,2", 1)])
def test_gpus_that_the_environment_hides_are_not_counted(named, count, tmp_path):
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": named}, tmp_path) == count


def test_gpus_of_the_driver_are_counted(tmp_path):
    assert visible_gpus({}, tmp_path / "none") == 1
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    assert visible_gpus({}, tmp_path) == 2
