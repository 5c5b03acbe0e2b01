"""What a request is about is read from its path, and nothing that a client makes up becomes a word of its own."""

import pytest

from ortcam.serve.http.kinds import kind_of


@pytest.mark.parametrize(
    ("path", "kind", "model"),
    [
        ("/v1/models/cat:predict", "predict", "cat"),
        ("/v1/models/cat:explain", "explain", "cat"),
        ("/v1/models/cat", "metadata", "cat"),
        ("/v1/models", "metadata", ""),
        ("/v2/models/cat/infer", "predict", "cat"),
        ("/v2/models/cat-explain/versions/1/infer", "explain", "cat"),
        ("/v2/models/dog-explain/infer", "predict", "dog-explain"),
        ("/v2/models/cat/ready", "metadata", "cat"),
        ("/v2", "metadata", ""),
        ("/v2/health/live", "health", ""),
        ("/jobs/abc", "job", ""),
        ("/ui/site.json", "page", ""),
        ("/metrics", "metrics", ""),
        ("/docs", "docs", ""),
        ("/v1/models/a/b:explain", "metadata", ""),
        ("/anything\n", "other", ""),
    ],
)
def test_kind_and_model_of_a_path(path: str, kind: str, model: str) -> None:
    assert kind_of(path, ["cat", "dog-explain"]) == (kind, model)
