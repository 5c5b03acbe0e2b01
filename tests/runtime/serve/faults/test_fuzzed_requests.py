"""10,000 requests that are almost right: each gets an answer in a form that a client can read, and none is a fault."""

import contextlib
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random

import pytest
from tests.common.images import encoded, photograph
from tests.runtime.serve.faults.mutations import changed, seeds
from tests.runtime.serve.faults.right_answers import right
from tests.runtime.serve.faults.server import Answer, Client, serving

REQUESTS = int(os.environ.get("ORTCAM_FUZZED_REQUESTS", "10000"))
CLIENTS = 4
SEED = 21
REFUSED = {400, 404, 405, 406, 408, 411, 413, 415, 422, 429, 431}


def readable(answer: Answer, folder: Path) -> str:
    """What is wrong with an answer, or ""."""
    if answer.status not in REFUSED | {200, 202}:
        return "status"
    if "x-request-id" not in answer.headers and answer.status not in {400, 408, 431}:  # of what is no HTTP
        return "no request id"
    text = answer.body.decode("latin-1")
    if any(secret in text for secret in ("Traceback", "site-packages", str(folder), str(Path.cwd()), "root:")):
        return "something of the machine"
    if answer.status not in REFUSED:
        return ""
    try:
        error = json.loads(answer.body)
    except ValueError:
        return "no JSON"
    if list(error) != ["error"] or not isinstance(error["error"], str) or not error["error"].strip():
        return "no sentence"
    if "\n" in error["error"] or len(error["error"]) > 2000:
        return "no short sentence"
    if answer.status == 429 and int(answer.headers.get("retry-after", 0)) < 1:
        return "no Retry-After"
    return ""


@pytest.mark.long
def test_every_request_that_is_almost_right_is_answered_readably(tmp_path: Path, tiny_bundle: Path) -> None:
    starts = seeds("tiny")
    image = encoded(photograph(), "JPEG", quality=90)

    def ask(client: Client, number: int) -> tuple[int, str]:
        random = Random(f"{SEED} {number}")
        asking = changed(random.choice(starts), random)
        answer = client.ask(asking.path, asking.body, method=asking.method, **asking.headers)
        wrong = readable(answer, tmp_path)
        return answer.status, wrong and f"{wrong}: {number}: {asking} -> {answer.status} {answer.body[:500]!r}"

    def ask_some(first: int) -> list[tuple[int, str]]:
        with contextlib.closing(server.client()) as client:
            return [ask(client, number) for number in range(first, REQUESTS, CLIENTS)]

    with right(tiny_bundle, image) as answers, serving(tmp_path, tiny_bundle) as server:
        with contextlib.closing(server.client()) as client:
            for start in starts:  # or the changes would be changes of nothing
                answer = client.ask(start.path, start.body, **start.headers)
                assert answer.status in {200, 202}, (start, answer)
        with ThreadPoolExecutor(CLIENTS) as pool:
            outcomes = [outcome for some in pool.map(ask_some, range(CLIENTS)) for outcome in some]
        assert len(outcomes) == REQUESTS
        wrong = [text for _, text in outcomes if text]
        assert not wrong, f"{len(wrong)} of {REQUESTS}:\n" + "\n".join(wrong[:20])
        statuses = {status for status, _ in outcomes}
        assert {200, 400, 422} <= statuses  # some pass, some are no JSON, some say what cannot be
        assert not [line for line in server.lines() if line["event"] == "internal error"]
        answers.check_server(server)
