"""Metrics: what is counted, the text of it, and labels that no client can multiply."""

import re
import sys
import threading
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from ortcam.serve.monitoring import MEASURES, Metrics


def _samples(metrics: Metrics) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    text = metrics.page()[0].decode()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_a_request_is_counted_with_its_stages() -> None:
    metrics = Metrics(("cat",))
    with metrics.running("explain"):
        assert _samples(metrics)["ortcam_requests_running", (("kind", "explain"),)] == 1
    for _ in range(2):
        metrics.finished("explain", "cat", 200, 0.75, {"queue": 0.25, "run": 0.5})
    found = _samples(metrics)
    assert found["ortcam_requests_running", (("kind", "explain"),)] == 0
    assert found["ortcam_requests_total", (("kind", "explain"), ("model", "cat"), ("status", "200"))] == 2
    assert found["ortcam_request_seconds_sum", (("kind", "explain"), ("model", "cat"))] == 1.5
    assert found["ortcam_stage_seconds_sum", (("kind", "explain"), ("stage", "queue"))] == 0.5
    assert found["ortcam_stage_seconds_bucket", (("kind", "explain"), ("le", "0.25"), ("stage", "run"))] == 0


@pytest.mark.parametrize(
    ("status", "reason"), [(401, "token"), (403, "origin"), (413, "size"), (422, "input"), (408, "slow")]
)
def test_a_refusal_is_counted_by_its_status(status: int, reason: str) -> None:
    metrics = Metrics(("cat",))
    metrics.finished("explain", "cat", status, 0.0)
    metrics.finished("explain", "cat", 200, 0.0)
    found = {labels: value for (name, labels), value in _samples(metrics).items() if "refused_total" in name}
    assert found == {(("reason", reason),): 1}


def test_the_work_of_a_job_has_its_own_kind() -> None:
    metrics = Metrics(("cat",))
    metrics.job_ended("cat", "done", 2.0, {"run": 1.5})
    found = _samples(metrics)
    assert found["ortcam_jobs_ended_total", (("model", "cat"), ("state", "done"))] == 1
    assert found["ortcam_request_seconds_sum", (("kind", "job-work"), ("model", "cat"))] == 2
    assert found["ortcam_stage_seconds_sum", (("kind", "job-work"), ("stage", "run"))] == 1.5


def test_names_that_clients_invent_make_one_series() -> None:
    metrics = Metrics(("cat",))
    for number in range(100):
        metrics.finished("explain", f"made-up-{number}", 404, 0.0)
    found = [(labels, value) for (name, labels), value in _samples(metrics).items() if name == "ortcam_requests_total"]
    assert found == [((("kind", "explain"), ("model", "other"), ("status", "404")), 100.0)]


def test_two_servers_in_one_process_count_apart() -> None:
    first, second = Metrics(), Metrics()
    first.refused("queue")
    assert ("ortcam_requests_refused_total", (("reason", "queue"),)) in _samples(first)
    assert ("ortcam_requests_refused_total", (("reason", "queue"),)) not in _samples(second)


def test_everything_else_has_its_series() -> None:
    metrics = Metrics()
    metrics.ready("cat", ready=True)
    metrics.ready("cat", ready=False)
    metrics.queued("masked", 3, 1)
    metrics.explained("cat", "scorecam++", 512, (0.015,))
    metrics.reloaded("cat", done=False)
    metrics.decoder_replaced("time")
    metrics.stopped("gone")
    metrics.jobs({"running": 2})
    found = _samples(metrics)
    assert {key: found[key] for key in WANTED} == WANTED


WANTED = {
    ("ortcam_model_ready", (("model", "cat"),)): 0,
    ("ortcam_queue_waiting", (("lane", "masked"),)): 3,
    ("ortcam_queue_running", (("lane", "masked"),)): 1,
    ("ortcam_forward_passes_total", (("model", "cat"),)): 512,
    ("ortcam_explanations_total", (("method", "scorecam++"), ("model", "cat"))): 1,
    ("ortcam_estimated_error_bucket", (("le", "0.01"), ("model", "cat"))): 0,
    ("ortcam_estimated_error_bucket", (("le", "0.02"), ("model", "cat"))): 1,
    ("ortcam_model_reloads_total", (("model", "cat"), ("outcome", "failed"))): 1,
    ("ortcam_decoders_replaced_total", (("reason", "time"),)): 1,
    ("ortcam_explanations_stopped_total", (("reason", "gone"),)): 1,
    ("ortcam_jobs", (("state", "running"),)): 2,
}


def test_what_requests_hold_is_asked_when_somebody_looks() -> None:
    metrics, held = Metrics(), [5]
    metrics.holds(lambda: held[0])
    held[0] = 7
    assert _samples(metrics)["ortcam_held_bytes", ()] == 7


def test_threads_lose_no_count() -> None:
    metrics = Metrics()
    threads = [threading.Thread(target=lambda: [metrics.refused("queue") for _ in range(500)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert _samples(metrics)["ortcam_requests_refused_total", (("reason", "queue"),)] == 2000


def test_openmetrics_is_sent_to_those_who_ask() -> None:
    text, media_type = Metrics().page("application/openmetrics-text; version=1.0.0")
    assert media_type.startswith("application/openmetrics-text")
    assert text.endswith(b"# EOF\n")
    text, media_type = Metrics().page("text/html")
    assert media_type.startswith("text/plain")
    assert b"_created" not in text


@pytest.mark.parametrize("version", ["new", "1.x", "", "-1.0.0", "1.0.0.0.0", '"1.0.0"'])
@pytest.mark.parametrize("media_type", ["application/openmetrics-text", "text/plain"])
def test_an_odd_version_is_answered_with_text(media_type: str, version: str) -> None:
    text, _ = Metrics().page(f"{media_type}; version={version}; escaping=no")
    assert b"ortcam_build_info" in text


def test_the_documentation_names_metrics_that_there_are() -> None:
    metrics = Metrics(("cat",))
    _fill(metrics)
    sent = {name for name, _ in _samples(metrics)}
    page = (Path(__file__).parents[3] / "docs" / "reference" / "metrics.md").read_text("utf-8")
    named = set(re.findall(r"\b(?:ortcam|process)_\w+", page))
    assert len(named) > 5
    if sys.platform != "linux":
        named = {name for name in named if name.startswith("ortcam_")}
    assert named - sent == set()


def test_every_measure_is_sent_under_its_name() -> None:
    metrics = Metrics(("cat",))
    _fill(metrics)
    families = {family.name: family.type for family in text_string_to_metric_families(metrics.page()[0].decode())}
    assert {measure.name: measure.kind for measure in MEASURES}.items() <= families.items()


def _fill(metrics: Metrics) -> None:
    """Let everything happen once."""
    with metrics.running("explain"):
        metrics.finished("explain", "cat", 200, 0.1, {"queue": 0.1})
    metrics.refused("queue")
    metrics.stopped("gone")
    metrics.queued("masked", 0, 0)
    metrics.explained("cat", "cam", 0, (0.0,))
    metrics.ready("cat", ready=True)
    metrics.reloaded("cat", done=True)
    metrics.decoder_replaced("died")
    metrics.jobs({"done": 0})
    metrics.job_ended("cat", "done", 0.0, {})
