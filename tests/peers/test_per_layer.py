"""Models that are none of transformers' own: KV heads that differ between layers, unequal groups.

It runs them with the code that `convert` puts into their folders, and refuses them without."""

import json
import shutil

import pytest
import random_models
import torch
from reference import gqa, load, same_evaluation, same_greedy
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    LlamaForCausalLM,
    MistralForCausalLM,
)

F32_CACHE = ("--kv-dtype", "f32")
# For three layers of six KV heads each.
PER_LAYER = [[[0, 4], [1, 3], [5, 2]], [[0, 1, 2, 3, 4, 5]], [[5], [3], [1], [0], [2], [4]]]
UNEQUAL = [[[0, 3, 4], [1], [5, 2]], [[0, 1, 2], [3, 4, 5]], [[4, 1, 2, 3, 5], [0]]]
SAME_NUMBER = [[[0, 3, 4, 1, 2], [5]]] * 3  # two KV heads, as an even model could have
GROUPS = {"per_layer": PER_LAYER, "unequal": UNEQUAL, "same_number": SAME_NUMBER}


def convert(source, out, groups, *options):
    file = out.with_suffix(".json")
    file.write_text(json.dumps(groups))
    gqa("convert", source, out, "--grouping", f"manual:{file}", "--unequal", *options)
    return out


@pytest.fixture(scope="session", params=["multi_head", "mistral_wide"])
def source(request, tmp_path_factory, excerpt):
    """Llama and Mistral with six KV heads in each of three layers."""
    folder = tmp_path_factory.mktemp(request.param)
    return random_models.make(request.param, folder, excerpt.read_text(encoding="utf-8"))


@pytest.fixture(params=GROUPS)
def converted(request, source, tmp_path):
    return convert(source, tmp_path / "out", GROUPS[request.param])


def test_evaluates_the_same(converted, excerpt):
    same_evaluation(converted, excerpt, *F32_CACHE)


def test_generates_the_same(converted):
    """With transformers' growing cache; Mistral's window is left behind."""
    for prompt in ("Once upon", "Tom"):
        same_greedy(converted, prompt, 100, *F32_CACHE)


@torch.no_grad()
def test_every_way_to_attend_and_to_cache(converted):
    model = load(converted)
    ids = torch.tensor([[0, 5, 77, 300, 12, 9, 200], [0, 6, 6, 31, 330, 44, 2]])
    eager = model(ids).logits
    model.set_attn_implementation("sdpa")
    assert (model(ids).logits - eager).abs().max() < 1e-4
    options = {"do_sample": False, "max_new_tokens": 90, "eos_token_id": None, "pad_token_id": 2}
    options["attention_mask"] = torch.ones_like(ids)
    alone = model.generate(ids, use_cache=False, **options)
    for cache in ({}, {"cache_implementation": "static"}):
        assert torch.equal(model.generate(ids, **options, **cache), alone), cache


def test_saved_again_it_is_read_again(converted, excerpt, tmp_path):
    load(converted).save_pretrained(tmp_path / "saved")
    shutil.copy(converted / "tokenizer.json", tmp_path / "saved")
    ours = same_evaluation(tmp_path / "saved", excerpt, *F32_CACHE)
    assert ours["nll"] == gqa("eval", converted, "--text", excerpt, *F32_CACHE)["nll"]


def test_expanded_it_needs_no_code(converted, excerpt, tmp_path):
    gqa("expand", converted, tmp_path / "six")
    assert not (tmp_path / "six/modeling_gqa.py").exists()
    ours = same_evaluation(tmp_path / "six", excerpt, *F32_CACHE)
    original = gqa("eval", converted, "--text", excerpt, *F32_CACHE)
    assert abs(ours["nll"] - original["nll"]) < 1e-5


def test_refused_without_trust(converted):
    for auto in (AutoModelForCausalLM, AutoModel, AutoConfig):
        for trust in ({}, {"trust_remote_code": False}):
            with pytest.raises(ValueError, match="custom code"):
                auto.from_pretrained(converted, **trust)


def test_refused_by_the_families_own_classes(converted):
    """They are told of num_key_value_heads alone, and that it is a list."""
    for family in (LlamaForCausalLM, MistralForCausalLM):
        with pytest.raises(Exception, match="num_key_value_heads"):
            family.from_pretrained(converted)


def test_why_it_takes_code_of_ours(source, tmp_path):
    """transformers has a field for such models, which its Llama and Mistral do not read."""
    out = convert(source, tmp_path / "out", PER_LAYER)
    config = json.loads((out / "config.json").read_text())
    heads = config.pop("num_key_value_heads")
    config["per_layer_config"] = {str(i): {"num_key_value_heads": n} for i, n in enumerate(heads)}
    config["model_type"] = config["model_type"].removeprefix("gqa_")
    del config["auto_map"], config["architectures"]
    (out / "config.json").write_text(json.dumps(config))
    with pytest.raises(Exception, match="per-layer"):
        AutoModelForCausalLM.from_pretrained(out)


def test_bad_sizes_are_refused_by_the_code_too(source, tmp_path):
    out = convert(source, tmp_path / "out", UNEQUAL)
    config = json.loads((out / "config.json").read_text())
    for key, value in (
        ("gqa_group_sizes", [[3, 1, 1], None, [5, 1]]),
        ("gqa_group_sizes", [[3, 1, 2], None]),
        ("num_key_value_heads", [3, 2]),
    ):
        (out / "config.json").write_text(json.dumps(config | {key: value}))
        with pytest.raises(Exception, match="gqa_group_sizes|groups"):
            load(out)


@pytest.mark.parametrize("name", ["biases", "untied", "mistral_bf16", "bf16"])
def test_grouped_sources(name, excerpt, tmp_path):
    """Two KV heads of three query heads each."""
    model = random_models.make(name, tmp_path / "model", excerpt.read_text(encoding="utf-8"))
    out = convert(model, tmp_path / "out", [[[1], [0]], [[0, 1]], [[0], [1]]])
    assert json.loads((out / "config.json").read_text())["num_key_value_heads"] == [2, 1, 2]
    same_evaluation(out, excerpt, *F32_CACHE)


def test_a_result_is_a_source(source, excerpt, tmp_path):
    """Groups of groups: 2, 2, 2 and 3, 1, 2 query heads become 4, 2 and 3, 3."""
    first = convert(source, tmp_path / "first", [PER_LAYER[0], UNEQUAL[0], PER_LAYER[1]])
    out = convert(first, tmp_path / "out", [[[0, 2], [1]], [[0], [2, 1]], [[0]]])
    found = gqa("inspect", out)
    assert found["kv_heads"] == [2, 2, 1] and found["group_sizes"] == [[4, 2], [3, 3], [6]]
    same_evaluation(out, excerpt, *F32_CACHE)


def test_tales(tales, excerpt, tmp_path):
    groups = [[[h] for h in range(8)]] * 2 + [[[0, 1], [2, 3], [4, 5], [6, 7]]] * 2
    groups += [[[7, 0, 1], [2, 3, 4, 5, 6]], [[0], [1, 2, 3, 4, 5, 6, 7]]]
    out = convert(tales, tmp_path / "out", groups)
    same_evaluation(out, excerpt, against=tales)
    same_greedy(out, "Once upon a time", 200)
