"""The batch size of a batch whose actors have GPUs: it is searched where they are, and not where the driver is."""

import dataclasses
from typing import Any

import ray

from ortcam.batch.job import RayOptions
from ortcam.batch.probing import find_batch_size
from ortcam.batch.ray.cluster import ShippedBundle, connected, ours
from ortcam.batch.ray.pipeline import Shares
from ortcam.batch.settings import BatchSettings
from ortcam.errors import OrtcamError

__all__ = ["find_on_cluster"]


def find_on_cluster(settings: BatchSettings, options: RayOptions) -> int:
    """As `find_batch_size`, in a task that has what an actor of the batch has.

    Args:
        settings: of the batch; the batch size in it does not count.
        options: of Ray.

    Raises:
        OptionError: as `connected`, or more than this machine has.
        OrtcamError: what is wrong with all images, or with Ray.
    """
    with connected(options) as cluster:
        shares = Shares.of(options, cluster)
        bundle = cluster.ship(settings.bundle, settings.bundle_sha256)
        task = ray.remote(_find).options(num_cpus=shares.cpus, num_gpus=shares.gpus)
        try:
            return int(ray.get(task.remote(settings, bundle, shares.cpus)))
        except ray.exceptions.RayError as error:
            found = ours(error)
            if found is None:
                lines = str(error).strip().splitlines() or [type(error).__name__]
                found = OrtcamError(f"Ray has ended the search of a batch size: {lines[0]}")
            raise found from None


def _find(settings: BatchSettings, bundle: ShippedBundle, threads: int) -> Any:
    return find_batch_size(dataclasses.replace(settings, bundle=bundle.folder()), threads=threads)
