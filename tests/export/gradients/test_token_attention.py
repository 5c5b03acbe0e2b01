"""The attention behind a token layer: which one is found, and what each token gives to the logits through it."""

import dataclasses
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from numpy.typing import NDArray

from ortcam.bundle import Cut
from ortcam_export.gradients.attention import OUTPUT, differentiate_with_attention, find_attention
from ortcam_export.graphs.running import run_part

HEADS, TOKENS, SIDE, CLASSES = 2, 5, 3, 4
WIDTH = HEADS * SIDE
CUT = Cut("features", None, "tokens", WIDTH, 2, 2, 1)
GENERATOR = np.random.default_rng(5)
WEIGHTS = {name: GENERATOR.standard_normal((WIDTH, WIDTH)).astype(np.float32) for name in ("wq", "wk", "wv", "wo")}
WEIGHTS["wc"] = GENERATOR.standard_normal((WIDTH, CLASSES)).astype(np.float32)
FEATURES = GENERATOR.standard_normal((1, TOKENS, WIDTH)).astype(np.float32)
FEEDS = {"features": FEATURES}

NORM = "n = LayerNormalization<axis=-1>(features, one)"
PRODUCTS = "q0 = MatMul(n, wq) k0 = MatMul(n, wk) v0 = MatMul(n, wv)"
APART = """
    q1 = Reshape(q0, apart) k1 = Reshape(k0, apart) v1 = Reshape(v0, apart)
    q = Transpose<perm=[0,2,1,3]>(q1) k = Transpose<perm=[0,2,3,1]>(k1) v = Transpose<perm=[0,2,1,3]>(v1)
"""
MIXED = """
    s = MatMul(q, k) a0 = Softmax<axis=-1>(s) a = Identity(a0) o = MatMul(a, v)
    o1 = Transpose<perm=[0,2,1,3]>(o) o2 = Reshape(o1, together)
"""
IN_BATCH = """
    qb = Reshape(q, in_batch) kb = Reshape(k, in_batch_turned) vb = Reshape(v, in_batch)
    s = MatMul(qb, kb) a = Softmax<axis=-1>(s) ob = MatMul(a, vb) o = Reshape(ob, out_of_batch)
    o1 = Transpose<perm=[0,2,1,3]>(o) o2 = Reshape(o1, together)
"""
BEHIND = "o3 = MatMul(o2, wo) x = Add(features, o3) n2 = LayerNormalization<axis=-1>(x, one)"
CLASS_TOKEN = "c = Gather<axis=1>(n2, zero) logits = MatMul(c, wc)"
BLOCK = NORM + PRODUCTS + APART + MIXED + BEHIND


def head(body: str, *, opset: int = 20) -> ir.Model:
    """A head whose nodes are given as text."""
    sides = {
        "apart": [0, 0, HEADS, SIDE],
        "together": [0, 0, WIDTH],
        "in_batch": [-1, TOKENS, SIDE],
        "in_batch_turned": [-1, SIDE, TOKENS],
        "out_of_batch": [-1, HEADS, TOKENS, SIDE],
        "one_axis": [1],
    }
    text = f"""
        <ir_version: 10, opset_import: ["" : {opset}]>
        head (float[N,{TOKENS},{WIDTH}] features) => (float[N,{CLASSES}] logits) {{ {body} }}
    """
    proto = onnx.parser.parse_model(text)
    constants = {
        **WEIGHTS,
        "one": np.ones(WIDTH, np.float32),
        "zero": np.array(0),
        "order": np.array([0, 2, 1, 3, 4]),
        **{name: np.array(values) for name, values in sides.items()},
    }
    used = {name for node in proto.graph.node for name in node.input}
    proto.graph.initializer.extend(
        onnx.numpy_helper.from_array(array, name) for name, array in constants.items() if name in used
    )
    model = ir.from_proto(onnx.shape_inference.infer_shapes(proto, data_prop=True))
    for node in model.graph:
        if node.outputs[0].name == "vb":  # as the export traces it
            node.outputs[0].shape = ir.Shape([f"{HEADS}*N", TOKENS, SIDE])
    return model


def by_differences(seed: NDArray[np.float64]) -> NDArray[np.float64]:
    """What each token gives, float64 [heads,T]: differences of the seeded logits in factors on the values."""

    def norm(x: NDArray[np.float64]) -> NDArray[np.float64]:
        return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)

    def seeded(factors: NDArray[np.float64]) -> float:
        x = FEATURES[0].astype(np.float64)
        q, k, v = (
            (norm(x) @ WEIGHTS[name].astype(np.float64)).reshape(TOKENS, HEADS, SIDE).transpose(1, 0, 2)
            for name in ("wq", "wk", "wv")
        )
        scores = np.exp(q @ k.transpose(0, 2, 1))
        mixed = scores / scores.sum(-1, keepdims=True) @ (v * factors[:, :, None])
        x = x + mixed.transpose(1, 0, 2).reshape(TOKENS, WIDTH) @ WEIGHTS["wo"]
        return float(norm(x)[0] @ WEIGHTS["wc"] @ seed)

    step, found = 1e-5, np.zeros((HEADS, TOKENS))
    for place in np.ndindex(found.shape):
        moved = np.zeros_like(found)
        moved[place] = step
        found[place] = (seeded(1 + moved) - seeded(1 - moved)) / (2 * step)
    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    ("body", "opset", "layout"),
    [
        (BLOCK + CLASS_TOKEN, 20, "heads first"),
        (NORM + PRODUCTS + APART + IN_BATCH + BEHIND + CLASS_TOKEN, 20, "heads in the batch"),
        (
            NORM + PRODUCTS + APART.replace("[0,2,3,1]", "[0,2,1,3]") + "o = Attention<scale=1.0>(q, k, v)"
            "o1 = Transpose<perm=[0,2,1,3]>(o) o2 = Reshape(o1, together)" + BEHIND + CLASS_TOKEN,
            23,
            "heads first",
        ),
        (
            NORM
            + PRODUCTS
            + f"o2 = Attention<scale=1.0, q_num_heads={HEADS}, kv_num_heads={HEADS}>(q0, k0, v0)"
            + BEHIND
            + CLASS_TOKEN,
            23,
            "heads last",
        ),
    ],
)
def test_what_each_token_gives_is_the_difference_that_a_factor_on_its_value_makes(
    tmp_path: Path, body: str, opset: int, layout: str
) -> None:
    model = head(body, opset=opset)
    found = find_attention(model, "features", CUT, FEEDS, lambda part, feeds: run_part(part, tmp_path, feeds))
    assert found is not None
    assert (found.layout, found.heads, found.tokens) == (layout, HEADS, TOKENS)
    gradient = differentiate_with_attention(model, ["features"], found)
    assert [output.name for output in gradient.graph.outputs] == ["gradient", OUTPUT]
    seeds = np.array([[1, 0, 0, 0], [0, -0.5, 0, 1]], np.float32)
    for features in (FEATURES, np.repeat(FEATURES, 2, axis=0)):
        _, relevance = run_part(gradient, tmp_path, {"seed": seeds, "features": features})
        for row, seed in zip(relevance, seeds, strict=True):
            expected = by_differences(seed.astype(np.float64))
            # Differences: 1e-10 (square of the step) + 1e-11 (rounding by the step). float32: 1e-6 for such sums.
            np.testing.assert_allclose(row, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (
            BLOCK + "c = ReduceMean<keepdims=0>(n2, one_axis) logits = MatMul(c, wc)",
            "patches reach the logits beside it",
        ),
        (
            NORM
            + "m = Gather<axis=1>(n, order)"
            + PRODUCTS.replace("(n,", "(m,")
            + APART
            + MIXED
            + BEHIND
            + CLASS_TOKEN,
            "the tokens are in another order",
        ),
        (
            NORM
            + PRODUCTS
            + "d = ReduceMean(n, one_axis) v9 = Add(v0, d)"
            + APART.replace("(v0,", "(v9,")
            + MIXED
            + BEHIND
            + CLASS_TOKEN,
            "the values are made of all tokens",
        ),
        (NORM.replace("n =", "n2 =") + CLASS_TOKEN, "no attention"),
        (BLOCK.replace("a0 = Softmax<axis=-1>(s)", "a0 = Sigmoid(s)") + CLASS_TOKEN, "no softmax"),
        (BLOCK.replace("a0 = Softmax<axis=-1>(s)", "a0 = Softmax<axis=-2>(s)") + CLASS_TOKEN, "softmax over queries"),
    ],
)
def test_another_head_has_none(tmp_path: Path, body: str, why: str) -> None:
    assert (
        find_attention(head(body), "features", CUT, FEEDS, lambda part, feeds: run_part(part, tmp_path, feeds)) is None
    ), why


def test_only_tokens_have_attention(tmp_path: Path) -> None:
    cut = dataclasses.replace(CUT, layout="nchw")
    model = head(BLOCK + CLASS_TOKEN)
    assert find_attention(model, "features", cut, FEEDS, lambda part, feeds: run_part(part, tmp_path, feeds)) is None
