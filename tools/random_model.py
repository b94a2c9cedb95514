"""Writes a Llama folder with random weights, for `gqa bench model`: how fast a model runs does not depend on them.

Usage: random_model.py OUT [--dtype f32|f16|bf16] [--layers N] [--width N] [--mlp-width N] [--heads N] [--kv-heads N]
                           [--head-dim N] [--vocab N] [--positions N]
"""

import argparse
import array
import json
import math
import pathlib
import random
import struct

NAMES = {"f32": "F32", "f16": "F16", "bf16": "BF16"}
POOL = 1 << 20  # numbers that all weights are taken from


def numbers(dtype, width):
    """POOL random weights as bytes: a matrix of so many inputs then keeps the size of what it is given."""
    draw = random.Random(1)
    values = array.array("f", (draw.gauss(0, 1 / math.sqrt(width)) for _ in range(POOL)))
    if dtype == "f32":
        return values.tobytes()
    if dtype == "f16":
        return struct.pack(f"<{POOL}e", *values)
    return array.array("H", (bits >> 16 for bits in array.array("I", values.tobytes()))).tobytes()


def tensors(a):
    """Names and shapes."""
    q, kv = a.heads * a.head_dim, a.kv_heads * a.head_dim
    yield "model.embed_tokens.weight", [a.vocab, a.width]
    for layer in range(a.layers):
        name = f"model.layers.{layer}."
        yield name + "input_layernorm.weight", [a.width]
        for part, out, inputs in (("self_attn.q_proj", q, a.width), ("self_attn.k_proj", kv, a.width),
                                  ("self_attn.v_proj", kv, a.width), ("self_attn.o_proj", a.width, q),
                                  ("mlp.gate_proj", a.mlp_width, a.width), ("mlp.up_proj", a.mlp_width, a.width),
                                  ("mlp.down_proj", a.width, a.mlp_width)):
            yield f"{name}{part}.weight", [out, inputs]
        yield name + "post_attention_layernorm.weight", [a.width]
    yield "model.norm.weight", [a.width]


def write(a):
    out = pathlib.Path(a.out)
    out.mkdir()
    (out / "config.json").write_text(json.dumps({
        "model_type": "llama", "num_hidden_layers": a.layers, "hidden_size": a.width, "intermediate_size": a.mlp_width,
        "num_attention_heads": a.heads, "num_key_value_heads": a.kv_heads, "head_dim": a.head_dim,
        "vocab_size": a.vocab, "max_position_embeddings": a.positions, "rms_norm_eps": 1e-5,
        "tie_word_embeddings": True, "bos_token_id": 1, "eos_token_id": 2}))
    size = 4 if a.dtype == "f32" else 2
    header, at = {}, 0
    for name, shape in tensors(a):
        end = at + size * math.prod(shape)
        header[name] = {"dtype": NAMES[a.dtype], "shape": shape, "data_offsets": [at, end]}
        at = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 64)
    pool = numbers(a.dtype, a.width)
    with open(out / "model.safetensors", "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for begin in range(0, at, len(pool)):
            file.write(pool[: at - begin])


def main():
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("out")
    parser.add_argument("--dtype", choices=NAMES, default="bf16")
    for name, default in (("layers", 8), ("width", 2048), ("mlp-width", 2816), ("heads", 16), ("kv-heads", 4),
                          ("head-dim", 128), ("vocab", 8192), ("positions", 4096)):
        parser.add_argument(f"--{name}", type=int, default=default)
    write(parser.parse_args())


if __name__ == "__main__":
    main()
