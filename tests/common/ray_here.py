"""Ray in the process of a test, whose workers are as important as the test, and die at one image."""

import contextlib
import os
import signal
from collections.abc import Iterator
from typing import Final

import numpy as np
import pytest

__all__ = ["DEADLY", "ENVIRONMENT", "ray_here"]

DEADLY: Final = (3, 1)  # width and height of an image that no process survives
# Nobody is told that Ray is used. The processes of nice 15, which is Ray's default, wait where others compute.
ENVIRONMENT: Final = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"}
_STARTS: Final = 5  # Ray gives up after half a minute, which a busy machine may need


@contextlib.contextmanager
def ray_here(*, gpus: int = 0) -> Iterator[None]:
    """Ray with two CPUs, and with GPUs that it is told of."""
    import ray

    def die_at_deadly_images() -> None:  # in here, so that it travels by value
        import cv2

        sound = cv2.imdecode

        def decode(data: np.ndarray, flags: int) -> np.ndarray:
            pixels = sound(data, flags)
            if pixels is not None and pixels.shape[1::-1] == DEADLY:
                os.kill(os.getpid(), signal.SIGSEGV)
            return pixels

        cv2.imdecode = decode

    with pytest.MonkeyPatch.context() as patch:
        for name, value in ENVIRONMENT.items():
            patch.setenv(name, value)
        for attempt in range(1, _STARTS + 1):
            try:
                ray.init(
                    address="local",
                    num_cpus=2,
                    num_gpus=gpus,
                    include_dashboard=False,
                    log_to_driver=False,
                    object_store_memory=200 << 20,
                    runtime_env={"worker_process_setup_hook": die_at_deadly_images},
                )
                break
            except Exception as error:
                ray.shutdown()
                if attempt == _STARTS or "timed out" not in str(error):
                    raise
        try:
            yield
        finally:
            ray.shutdown()
