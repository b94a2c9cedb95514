"""Small Llama and Mistral models with random weights, saved as transformers saves them."""

import json

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM

BASE = {
    "hidden_size": 48,
    "intermediate_size": 173,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "vocab_size": 331,
    "max_position_embeddings": 160,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "tie_word_embeddings": True,
}


def rope(kind, **more):
    return {"rope_parameters": {"rope_type": kind} | {"rope_theta": 10000.0} | more}


LLAMA3 = rope(
    "llama3",
    factor=8.0,
    low_freq_factor=1.0,
    high_freq_factor=4.0,
    original_max_position_embeddings=40,
)
MISTRAL = {"family": (MistralConfig, MistralForCausalLM)}
# name: (fields that differ from BASE, how it is saved). A seed is chosen such that no two ids
# nearly tie in the greedy texts.
MODELS = {
    "grouped": ({}, {"seed": 1}),
    "multi_head": ({"num_key_value_heads": 6}, {}),
    "multi_query": ({"num_key_value_heads": 1}, {"seed": 1}),
    "group_of_5": ({"num_attention_heads": 10, "head_dim": 10, "hidden_size": 50}, {"seed": 1}),
    "wide_heads": ({"head_dim": 34, "hidden_size": 54}, {}),
    "default_head_dim": ({"head_dim": None, "hidden_size": 60}, {"seed": 1}),
    "biases": ({"attention_bias": True, "mlp_bias": True}, {}),
    "untied": ({"tie_word_embeddings": False}, {}),
    "several_ends": ({"eos_token_id": [1, 7, 40, 90, 200, 300]}, {"seed": 1}),
    "no_bos": ({"bos_token_id": None}, {}),
    "eps_and_theta": ({"rms_norm_eps": 0.3} | rope("default", rope_theta=321.5), {}),
    "rope_linear": (rope("linear", factor=4.0), {}),
    "rope_llama3": (LLAMA3, {}),
    "rope_llama3_old_config": (LLAMA3, {"old_config": True}),
    "rope_yarn": (rope("yarn", factor=4.0, original_max_position_embeddings=40), {}),
    "rope_yarn_fields": (
        rope(
            "yarn",
            factor=4.0,
            original_max_position_embeddings=40,
            beta_fast=16.0,
            beta_slow=2.0,
            attention_factor=1.3,
        ),
        {},
    ),
    "rope_longrope": (
        rope(
            "longrope",
            short_factor=[1.0, 1.1, 1.3, 0.7, 2.0, 3.5, 1.0, 9.0],
            long_factor=[1.0, 1.1, 1.3, 0.7, 2.0, 3.5, 1.0, 9.0],
            original_max_position_embeddings=40,
        ),
        {},
    ),
    # Texts of as many tokens as there are positions: the long factors are for longer ones.
    "rope_longrope_short": (
        rope(
            "longrope",
            short_factor=[1.0, 1.1, 1.3, 0.7, 2.0, 3.5, 1.0, 9.0],
            long_factor=[5.0] * 8,
            factor=4.0,
            original_max_position_embeddings=160,
        ),
        {"old_config": True},
    ),
    "sharded": (
        {"attention_bias": True, "tie_word_embeddings": False},
        {"seed": 1, "max_shard_size": "100KB"},
    ),
    "f16": ({"tie_word_embeddings": False}, {"dtype": torch.float16}),
    "bf16": ({"attention_bias": True}, {"dtype": torch.bfloat16}),
    "mistral": ({"sliding_window": 13}, MISTRAL),
    "mistral_two_tokens": (
        {"sliding_window": 2, "head_dim": None, "hidden_size": 60, "tie_word_embeddings": False},
        MISTRAL,
    ),
    # More than a block of 64 keys; texts of 160 tokens leave it behind.
    "mistral_wide": ({"sliding_window": 70, "num_key_value_heads": 6}, MISTRAL),
    "mistral_no_window": ({"sliding_window": None}, MISTRAL | {"seed": 1}),
    "mistral_bf16": ({"sliding_window": 31}, MISTRAL | {"dtype": torch.bfloat16}),
}


def train_tokenizer(text, path):
    """A byte-level BPE; <s> is 0 and </s> is 1."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=["<s>", "</s>"],
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator([text], trainer)
    tokenizer.save(str(path))


def randomise(model, seed):
    """Weights that make every part matter: sharp logits, norms away from 1, biases away from 0."""
    random = torch.Generator().manual_seed(seed)
    for name, weight in model.named_parameters():
        noise = torch.randn(weight.shape, generator=random)
        if "norm" in name:
            weight.data = 1 + 0.3 * noise
        elif weight.dim() == 1:
            weight.data = 0.5 * noise
        elif "embed" in name:
            weight.data = 0.3 * noise
        else:
            weight.data = 1.5 * noise / weight.shape[1] ** 0.5


def old_config(folder):
    """The fields as releases before 5 wrote them."""
    path = folder / "config.json"
    config = json.loads(path.read_text())
    parameters = config.pop("rope_parameters")
    config["rope_theta"] = parameters.pop("rope_theta")
    config["rope_scaling"] = parameters
    config["torch_dtype"] = config.pop("dtype")
    path.write_text(json.dumps(config))


def make(name, folder, text):
    """Saves MODELS[name] with a tokenizer trained on the text."""
    fields, saving = MODELS[name]
    make_config, make_model = saving.get("family", (LlamaConfig, LlamaForCausalLM))
    model = make_model(make_config(**BASE | fields)).eval()
    randomise(model, saving.get("seed", 0))
    model.tie_weights()
    model.to(saving.get("dtype", torch.float32))
    model.save_pretrained(
        folder, **({"max_shard_size": s} if (s := saving.get("max_shard_size")) else {})
    )
    if saving.get("old_config"):
        old_config(folder)
    train_tokenizer(text, folder / "tokenizer.json")
    return folder
