"""What a job keeps of its images, which may be large."""

import asyncio
import gc
import weakref

import pytest
from starlette.responses import JSONResponse, Response
from tests.common.loops import run_async

from ortcam.serve.jobs.store import Jobs, Show
from ortcam.serve.monitoring import Metrics
from ortcam.serve.scheduling.calls import Call
from ortcam.serve.settings import RequestLimits


class Photograph:
    """Stands for one."""


@pytest.mark.slow
def test_the_maps_of_images_that_are_done_are_not_kept() -> None:
    images = weakref.WeakSet[Photograph]()

    async def test() -> None:
        shown, go_on = asyncio.Event(), asyncio.Event()

        async def work(show: Show | None) -> Response:
            assert show is not None
            for place in range(5):
                image = Photograph()
                images.add(image)
                show(place, lambda image=image: {"image": str(image)})
                del image
                await asyncio.sleep(0)
            shown.set()
            await go_on.wait()
            return JSONResponse({})

        job = Jobs(RequestLimits(), Metrics(("tiny",))).submit("tiny", Call(), work)
        await shown.wait()
        gc.collect()
        assert len(images) == 1
        go_on.set()
        assert await job.over(60)
        gc.collect()
        assert len(images) == 0

    run_async(test())
