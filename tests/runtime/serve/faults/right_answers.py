"""What a server has to answer, by the library, so that a test can say that it still answers."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from tests.runtime.serve.faults.server import Answer, Server

import ortcam
from ortcam.serve.protocols.answers import explanation_record
from ortcam.serve.protocols.asked import Asked
from ortcam.serve.settings import RequestLimits

__all__ = ["Right", "right"]


class Right:
    """The right answers of one bundle for one image."""

    def __init__(self, explainer: ortcam.Explainer, name: str, image: bytes) -> None:
        self.name = name
        self.image = image
        self._explainer = explainer
        self._targets: dict[str, Any] = {}

    def path(self, verb: str = "explain", **parameters: object) -> str:
        """Where to post the image."""
        query = "&".join(f"{name}={value}" for name, value in parameters.items())
        return f"/v1/models/{self.name}:{verb}" + (f"?{query}" if query else "")

    def targets(self, **parameters: object) -> Any:
        """Classes, probabilities and maps of the library's explanation, as JSON has them."""
        key = json.dumps(parameters)
        if key not in self._targets:
            asked = Asked.of(parameters, RequestLimits(), self._explainer.bundle.manifest)
            record = explanation_record(self._explainer.explain_request(asked.request, self.image), asked)
            self._targets[key] = json.loads(json.dumps(record["targets"]))
        return self._targets[key]

    def check(self, answer: Answer, **parameters: object) -> None:
        """Fail unless it is the right explanation."""
        assert answer.status == 200, answer.body
        (explanation,) = answer.json()["explanations"]
        assert explanation["targets"] == self.targets(**parameters)

    def check_server(self, server: Server) -> None:
        """Fail unless the server lives, predicts and explains, by a method of each kind."""
        assert server.alive(), server.log.read_text("utf-8")
        assert server.ask("/v2/health/live").status == server.ask("/v2/health/ready").status == 200
        (prediction,) = server.ask(self.path("predict", probabilities="true"), self.image).json()["predictions"]
        found = np.asarray(prediction["probabilities"], np.float32)
        np.testing.assert_array_equal(found, self._explainer.predict(self.image))
        for parameters in ({"method": "grad-cam"}, {"method": "recipro-cam"}, {"method": "scorecam", "budget": 5}):
            self.check(server.ask(self.path(**parameters), self.image), **parameters)


@contextmanager
def right(bundle: Path, image: bytes, **options: Any) -> Iterator[Right]:
    """The right answers of a bundle, under the name that it is served by."""
    with ortcam.load(bundle, **options) as explainer:
        yield Right(explainer, bundle.stem, image)
