"""`ortcam serve` under Ray Serve, with the routes and the answers that it has by itself.

In this folder: ORTCAM_BUNDLE=/models/resnet18.ortcam serve run ray_serve:app
"""

import os

from fastapi import FastAPI
from ray import serve

from ortcam.serve import Settings, create_app

CORES = int(os.environ.get("ORTCAM_CORES", "2"))  # of each replica
SETTINGS = Settings.of([os.environ.get("ORTCAM_BUNDLE", "shapes")], threads=CORES)


def build() -> FastAPI:
    """Make the application, in each replica: models are opened there."""
    return create_app(SETTINGS)


# Jobs live in the replica that took them. With `Prefer: respond-async`, keep to one.
@serve.deployment(
    num_replicas=1,
    max_ongoing_requests=128,  # ortcam has queues of its own, and answers 429
    ray_actor_options={"num_cpus": CORES},
    graceful_shutdown_timeout_s=SETTINGS.drain_seconds + 5,
)
@serve.ingress(build)
class Explain:
    """All of the application's routes."""

    async def check_health(self) -> None:
        """Take requests once the models are open and warmed up."""
        service = self.app.state.service
        await service.opened.wait()
        if service.failure is not None:
            raise service.failure


app = Explain.bind()
