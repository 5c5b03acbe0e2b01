"""The paths of jobs: their state, their answer, a stream of their maps, and their end."""

from fastapi import APIRouter, Request
from fastapi.responses import Response

from ortcam.serve.jobs.asking import Preferences, address_of, wants_stream
from ortcam.serve.jobs.events import stream
from ortcam.serve.jobs.job import Job
from ortcam.serve.service import service_of

__all__ = ["router"]

router = APIRouter()

_RETRY = {"Retry-After": "1"}


@router.get("/jobs/{id_}")
async def state(request: Request, id_: str) -> Response:
    """The state of a job, with its answer once it has one; or a stream of its maps (`Accept: text/event-stream`).

    With `Prefer: wait=SECONDS` the state is answered when the job has ended, or after that time.
    """
    job = service_of(request).jobs.get(id_)
    if wants_stream(request):
        return stream(job)
    wait = Preferences.of(request).wait
    if wait:
        await job.over(wait)
    return _state(request, job, 200)


@router.get("/jobs/{id_}/result")
async def result(request: Request, id_: str) -> Response:
    """The very answer that the request would have got without `Prefer`; 202 and the state until it is there."""
    job = service_of(request).jobs.get(id_)
    wait = Preferences.of(request).wait
    if wait:
        await job.over(wait)
    return job.answer() if job.ended else _state(request, job, 202)


@router.delete("/jobs/{id_}")
async def end(request: Request, id_: str) -> Response:
    """Cancel a job that has not ended; forget one that has."""
    jobs = service_of(request).jobs
    job = jobs.get(id_)
    if job.ended:
        jobs.forget(job)
        return Response(status_code=204)
    jobs.cancel(job)
    return _state(request, job, 200)


def _state(request: Request, job: Job, status: int) -> Response:
    headers = {} if job.ended else _RETRY
    return Response(job.record(address_of(request, job)), status, headers, "application/json")
