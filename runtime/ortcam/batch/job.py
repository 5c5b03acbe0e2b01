"""`Job`: what an engine is to do, besides the items: settings, resources, and the word to stop."""

import threading
from dataclasses import dataclass, field

import pyarrow as pa

from ortcam.batch.settings import BatchSettings
from ortcam.errors import OptionError
from ortcam.support.ranges import ACTORS, CPUS, GPUS, shown

__all__ = ["Job", "RayOptions"]


@dataclass(frozen=True)
class RayOptions:
    """How a batch uses Ray.

    Attributes:
        address: of a cluster; None: that of the environment (`RAY_ADDRESS`), or Ray on this machine alone.
        actors: fewest and most actors that explain; Ray decides between them. None: as many as fit.
        cpus: of each actor, which are the threads that it scores with; None: as measured best.
        gpus: of each actor; fractions below 1 let several share one.

    Raises:
        OptionError: a number that is not in its range (`support.ranges`), more actors at least than at most, or one and
            a half GPUs.
    """

    address: str | None = None
    actors: tuple[int, int] | None = None
    cpus: int | None = None
    gpus: float | None = None

    def __post_init__(self) -> None:
        for range_, values in ((ACTORS, self.actors or ()), (CPUS, (self.cpus,)), (GPUS, (self.gpus,))):
            for value in values:
                if value is not None:
                    range_.check(value)
        if self.actors is not None and (len(self.actors) != 2 or self.actors[0] > self.actors[1]):
            raise OptionError(f"actors={shown(self.actors)}: accepted are two numbers, the fewest and the most")
        if self.gpus is not None and self.gpus > 1 and self.gpus % 1:
            raise OptionError(f"gpus_per_actor={shown(self.gpus)}: accepted above 1 are whole numbers alone")


@dataclass(frozen=True)
class Job:
    """What an engine is to do with items.

    Attributes:
        settings: what the rows depend on.
        schema: of the parts.
        processes: that score, of the local engine; None: as measured best.
        threads: of each process that scores; None: as measured best.
        ray: of the Ray engine.
        stop: set where the work is to end early: the engine then writes what is finished, and returns.
    """

    settings: BatchSettings
    schema: pa.Schema
    processes: int | None = None
    threads: int | None = None
    ray: RayOptions = field(default_factory=RayOptions)
    stop: threading.Event = field(default_factory=threading.Event)
