"""The program against transformers: the same losses, the same greedy texts, folders that load."""

import json
import math

import pytest
import random_models
from reference import gqa, same_evaluation, same_greedy

F32_CACHE = ("--kv-dtype", "f32")


@pytest.fixture(scope="session", params=random_models.MODELS)
def random_model(request, tmp_path_factory, excerpt):
    folder = tmp_path_factory.mktemp(request.param)
    return random_models.make(request.param, folder, excerpt.read_text(encoding="utf-8"))


# ---- trained models ----


def test_tales_nll(tales, heldout):
    ours = same_evaluation(tales, heldout)
    assert abs(ours["nll"] - 1.70525) < 1e-4


@pytest.mark.parametrize("context", [2, 37, 128])
def test_shorter_windows(tales, excerpt, context):
    same_evaluation(tales, excerpt, context=context)


@pytest.mark.parametrize(
    "prompt",
    [
        "Once upon a time",
        "Lily saw",
        "The big dog",
        "\u201cHi!\u201d \u00c5sa said. \U0001f600",
        "  \n",
    ],
)
def test_tales_greedy(tales, prompt):
    same_greedy(tales, prompt, 256)


def test_stories_nll(shared, tmp_path):
    lines = (
        (shared / "text/tinystories-valid.txt")
        .read_text(encoding="utf-8")
        .splitlines(keepends=True)
    )
    text = tmp_path / "text.txt"
    text.write_text("".join(lines[-865:]), encoding="utf-8")
    ours = same_evaluation(shared / "models/stories260K", text)
    assert abs(ours["nll"] - 1.81523) < 1e-4


def test_stories_greedy(shared):
    ours = same_greedy(shared / "models/stories260K", "Once upon a time", 256)
    assert ours["text"].startswith(
        "Once upon a time, there was a little girl named Lily. She loved to play outside in the "
        "park. One day, she saw a big, red ball."
    )


# ---- random models ----


def test_random_nll(random_model, excerpt):
    ours = same_evaluation(random_model, excerpt, *F32_CACHE)
    assert abs(ours["nll"] - math.log(331)) > 0.1, "near-uniform predictions test nothing"


def test_random_greedy(random_model):
    for prompt in ("Once upon", "Tom", "\u201cThe cat"):
        same_greedy(random_model, prompt, 64, *F32_CACHE)


# ---- what convert and expand write ----

CONVERSIONS = {
    "to_4": ["--kv-heads", 4],
    "to_1": ["--kv-heads", 1],
    "random_first": ["--kv-heads", 2, "--grouping", "random", "--merge", "first", "--seed", 3],
    "random_merge": ["--kv-heads", 2, "--merge", "random"],
    "sharded": ["--kv-heads", 2, "--max-shard-size", "500KB"],
    "bf16": ["--kv-heads", 4, "--dtype", "bf16", "--max-shard-size", "1MB"],
    "f16": ["--kv-heads", 4, "--dtype", "f16"],
}


@pytest.mark.parametrize("options", CONVERSIONS.values(), ids=CONVERSIONS.keys())
def test_converted_loads(tales, excerpt, tmp_path, options):
    out = tmp_path / "out"
    gqa("convert", tales, out, *options)
    config = json.loads((out / "config.json").read_text())
    assert config["num_key_value_heads"] == options[1]
    if "--max-shard-size" in options:
        assert len(list(out.glob("model-*-of-*.safetensors"))) > 1
    same_evaluation(out, excerpt, *F32_CACHE)


def test_permuted_heads_change_nothing(tales, excerpt, tmp_path):
    """Eight groups of one head in another order: other weights, the same function."""
    groups = tmp_path / "groups.json"
    groups.write_text(json.dumps([[3], [0], [7], [1], [6], [2], [5], [4]]))
    out = tmp_path / "out"
    gqa("convert", tales, out, "--kv-heads", 8, "--grouping", f"manual:{groups}")
    assert (out / "model.safetensors").read_bytes() != (tales / "model.safetensors").read_bytes()
    ours = same_evaluation(out, excerpt)
    original = gqa("eval", tales, "--text", excerpt)
    assert abs(ours["nll"] - original["nll"]) < 1e-5


def test_expanded_computes_the_same(tales, excerpt, tmp_path):
    two, eight = tmp_path / "two", tmp_path / "eight"
    gqa("convert", tales, two, "--kv-heads", 2)
    gqa("expand", two, eight)
    assert json.loads((eight / "config.json").read_text())["num_key_value_heads"] == 8
    ours = same_evaluation(eight, excerpt)
    assert abs(ours["nll"] - gqa("eval", two, "--text", excerpt)["nll"]) < 1e-5


@pytest.mark.parametrize(
    "name", ["biases", "untied", "sharded", "wide_heads", "f16", "bf16", "mistral", "mistral_bf16"]
)
def test_random_models_convert_and_expand(name, excerpt, tmp_path):
    model = random_models.make(name, tmp_path / "model", excerpt.read_text(encoding="utf-8"))
    gqa("convert", model, tmp_path / "one", "--kv-heads", 1)
    same_evaluation(tmp_path / "one", excerpt, *F32_CACHE)
    same_greedy(tmp_path / "one", "Once upon", 64, *F32_CACHE)
    gqa("expand", model, tmp_path / "six")
    ours = same_evaluation(tmp_path / "six", excerpt, *F32_CACHE)
    original = gqa("eval", model, "--text", excerpt, *F32_CACHE)
    assert abs(ours["nll"] - original["nll"]) < 1e-5


# Heads of fewer dimensions, whose planes turn as some of the original's do.
KV_RANKS = {
    "to_12": ["--kv-rank", 12],
    "to_8_of_4": ["--kv-rank", 8, "--kv-heads", 4],
    "unequal": ["--kv-rank", 6, "--kv-heads", 3, "--unequal"],
    "bf16": ["--kv-rank", 8, "--dtype", "bf16"],
}


@pytest.mark.parametrize("options", KV_RANKS.values(), ids=KV_RANKS.keys())
def test_kv_rank_loads(tales, excerpt, tmp_path, options):
    out = tmp_path / "out"
    gqa("convert", tales, out, *options)
    assert json.loads((out / "config.json").read_text())["head_dim"] == options[1]
    same_evaluation(out, excerpt, *F32_CACHE)


def test_calibrated_kv_rank_loads(tales, excerpt, tmp_path):
    """With a file of key directions beside the weights."""
    out = tmp_path / "out"
    text = ["--calibrate", excerpt, "--calibrate-tokens", 256, "--sampled-tokens", 0, "--refine", 1]
    gqa("convert", tales, out, "--kv-rank", 8, *text)
    assert (out / "key_directions.safetensors").exists()
    same_evaluation(out, excerpt, *F32_CACHE)
    same_greedy(out, "Once upon a time", 64, *F32_CACHE)


@pytest.mark.parametrize(
    "name",
    [
        "biases",
        "wide_heads",
        "eps_and_theta",
        "rope_linear",
        "rope_llama3",
        "rope_llama3_old_config",
        "rope_yarn_fields",
        "rope_longrope",
        "rope_longrope_short",
        "f16",
        "mistral",
    ],
)
def test_kv_rank_of_random_models(name, excerpt, tmp_path):
    model = random_models.make(name, tmp_path / "model", excerpt.read_text(encoding="utf-8"))
    gqa("convert", model, tmp_path / "out", "--kv-rank", 8)
    same_evaluation(tmp_path / "out", excerpt, *F32_CACHE)
    same_greedy(tmp_path / "out", "Once upon", 64, *F32_CACHE)


# ---- one model against another ----


def test_kl_and_agreement(tales, excerpt, tmp_path):
    gqa("convert", tales, tmp_path / "four", "--kv-heads", 4)
    ours = same_evaluation(tmp_path / "four", excerpt, against=tales)
    assert ours["kl"] > 0.5 and 0.1 < ours["top1_agreement"] < 0.9, "models too alike to test much"


def test_no_difference_to_itself(tales, excerpt):
    ours = gqa("eval", tales, "--text", excerpt, "--against", tales)
    assert abs(ours["kl"]) < 1e-9 and ours["top1_agreement"] == 1
