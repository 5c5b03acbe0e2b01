"""Scores in the page's modules, bundled for Node: the values, derivatives and sentences of Python."""

import dataclasses
import json

import numpy as np
import pytest
from tests.conftest import TENSOR_BUNDLE, TINY_BUNDLE, VALUES_BUNDLE

from ortcam.bundle import OutputPart, read_bundle
from ortcam.errors import OrtcamError
from ortcam.request import Score

TINY, VALUES, TENSOR = (read_bundle(path).manifest for path in (TINY_BUNDLE, VALUES_BUNDLE, TENSOR_BUNDLE))
SIGMOID = dataclasses.replace(TINY, activation="sigmoid")
DIGITS = dataclasses.replace(TINY, labels=("1", "0", "Straße", "label:x", "x", "resnet18 ResNet-50"))
SEVERAL = dataclasses.replace(
    TENSOR,
    output_shape=(49,),
    output_parts=(OutputPart("scores", (4, 6)), OutputPart("a - b", (24,)), OutputPart("one", ())),
)
ARRAYS = {
    "v.npy": np.array([3.0, -1, 0.5, 0, 2, 1]),
    "zeros.npy": np.zeros(6),
    "small.npy": np.arange(24.0).reshape(4, 6),
    "input.png": np.random.default_rng(0).random((32, 48)),
    "below.npy": -np.ones((4, 6)),
}
TEXTS = {
    "tiny": [
        *("dog", "2*dog - 0.5*'white, striped' + 1", "-DOG + sea_snake", "index:3 - index:4", "label:cat", "  cat  "),
        *("entropy", "probability:cat + probability:dog", "entropy - probability:cat + 0.25*logit:index:3", "1.*cat"),
        *("cosine:v.npy", "3*cosine:'v.npy' - cat", "output[3]", "output[:]", "OUTPUT[0] - .5e1*output[5]"),
        *(
            "",
            " ",
            "crane",
            "dogg",
            "cat-dog",
            "cat -",
            "3",
            "2 + 1",
            "-7",
            "1e99*cat",
            "2*",
            "logit:",
            "cosine:",
            "a:b",
        ),
        *(
            "entrpy",
            "prob",
            "snake",
            "sea",
            "whitestriped",
            "cat - cat",
            "cosine:zeros.npy",
            "cosine:small.npy",
            "index:9",
        ),
        *(
            "output[6]",
            "output[0, 1]",
            "output[x]",
            "output[:]@small.npy",
            "output",
            "dog[3]",
            "é\n'\"",
            "x" * 80,
            "label:",
        ),
        *(
            "1e30*cat + 1e30*cat - 1e31*dog",
            "9e29*cat*2",
            "probability:dogs",
            "17",
            "'dog'",
            "\"cat\" - 'dog'",
            "striped",
        ),
    ],
    "digits": [
        "1",
        "index:1",
        "label:1",
        "2",
        "label:x",
        "x",
        "straSSe",
        "index:Straße",
        "resnet-50",
        "-1",
        "0 - 1*index:2",
    ],
    "sigmoid": ["entropy", "probability:cat - probability:dog", "0.5*entropy + 2*cat", "cosine:v.npy"],
    "values": ["age - weight", "age", "probability:age", "entropy", "output[1]", "heigth", "cosine:v.npy"],
    "tensor": [
        *(
            "output[0, 1, :] - 2*output[1, 2, 3]",
            "output[:, :, :]",
            "output[1, :, :]@small.npy",
            "output[0, :, :]@input.png",
        ),
        *(
            "output[:, 1, :]@small.npy",
            "output[0, :, :]@below.npy",
            "output[0, :, :]@v.npy",
            "output[2, 0, 0]",
            "cat",
            "entropy",
        ),
        *(
            "output[0, :, 1]@small.npy",
            "output[0, :, :] @ 'small.npy' - 1",
            "output[0, :, :]@''",
            "cosine:v.npy",
            "scores[0]",
        ),
    ],
    "several": [
        *(
            "scores[1, 2]",
            "2*scores[1, :] - 'a - b'[7]",
            "one",
            "'one' - one[0]",
            "scores",
            "score[0, 0]",
            "a[0]",
            "output[0]",
        ),
        *(
            "scores[:, :]@small.npy",
            "scores[0]",
            "scores[9, 0]",
            "'a - b'[:]",
            "entropy",
            "cosine:v.npy",
            "scores[:]@small.npy",
        ),
    ],
}
MANIFESTS = {
    "tiny": TINY, "digits": DIGITS, "sigmoid": SIGMOID, "values": VALUES, "tensor": TENSOR, "several": SEVERAL,
}  # fmt: skip
BODY = """
  const arrays = new Map(ARRAYS);
  const answers = TEXTS.map((text) => {
    try {
      const { expression } = own.Score.of(text || " ", MANIFEST, arrays);
      if (expression === null) return "no expression";
      const logits = given.logits;
      const { isProbability, isPositive, isAffine } = expression;
      const numbers = [expression.value(logits), ...expression.derivative(logits)];
      return { kinds: [isProbability, isPositive, isAffine], numbers };
    } catch (error) {
      if (error.name !== "OrtcamError") throw error;
      return error.message;
    }
  });
  return { said: new TextEncoder().encode(JSON.stringify(answers)) };
"""


def pythons(text, manifest, logits):
    used = {name: array for name, array in ARRAYS.items() if name in text}
    try:
        matrix = Score(text, arrays=used, files=False).matrix(manifest)
    except OrtcamError as error:
        return str(error)
    kinds = [matrix.is_probability, matrix.is_positive, matrix.is_affine]
    return {"kinds": kinds, "numbers": [matrix.value(logits)[0], *matrix.derivative(logits)[0]]}


@pytest.mark.sample(every=3)
@pytest.mark.whole
@pytest.mark.parametrize("name", TEXTS)
def test_a_score_has_the_value_the_derivative_or_the_sentence_of_python(call, name):
    manifest = MANIFESTS[name]
    texts = [text for text in TEXTS[name] if text.strip()]  # of an empty field the class is explained
    logits = (3 * np.random.default_rng(1).standard_normal(manifest.outputs)).astype(np.float32)
    arrays = [[key, {"data": array.ravel().tolist(), "shape": array.shape}] for key, array in ARRAYS.items()]
    facts = {
        "labels": manifest.labels,
        "output_shape": manifest.output_shape,
        "output_parts": [dataclasses.asdict(part) for part in manifest.output_parts],
        "activation": manifest.activation,
        "preprocessing": {"height": 32, "width": 48},
    }
    body = BODY.replace("ARRAYS", json.dumps(arrays)).replace("TEXTS", json.dumps(texts))
    found = json.loads(bytes(call("score", body.replace("MANIFEST", json.dumps(facts)), logits=logits)["said"]))
    differ = {}
    for text, answer in zip(texts, found, strict=True):
        expected = pythons(text, manifest, logits)
        if isinstance(expected, dict) and isinstance(answer, dict):
            assert answer["kinds"] == expected["kinds"], text
            np.testing.assert_allclose(answer["numbers"], expected["numbers"], rtol=1e-6, atol=1e-6, err_msg=text)
        elif answer != expected:
            differ[text] = (answer, expected)
    assert not differ
