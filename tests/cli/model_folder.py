"""Model folders to break: the shipped model, cut to one layer."""

import json
import math
import pathlib
import struct

SOURCE = pathlib.Path(__file__).resolve().parents[2] / "models/tales-mha"
BYTES = {"F32": 4, "F16": 2, "BF16": 2, "I32": 4, "I64": 8, "U8": 1, "F8_E4M3": 1, "F8_E5M2": 1}


def read_safetensors(path):
    """{name: (dtype, shape, bytes)}"""
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    body = data[8 + length :]
    return {
        name: (t["dtype"], t["shape"], body[slice(*t["data_offsets"])])
        for name, t in header.items()
        if name != "__metadata__"
    }


def header_of(tensors):
    """The JSON header of tensors that lie one after the other."""
    header, at = {"__metadata__": {"format": "pt"}}, 0
    for name, (dtype, shape, data) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + len(data)]}
        at += len(data)
    return header


def safetensors(tensors, header=None):
    """A file's bytes; `header`, an object or raw bytes, takes the place of the right one."""
    header = header_of(tensors) if header is None else header
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + b"".join(data for _, _, data in tensors.values())


class ModelFolder:
    """A model to be written to disk; its parts may be changed first."""

    def __init__(self):
        self.config = json.loads((SOURCE / "config.json").read_text()) | {"num_hidden_layers": 1}
        self.tokenizer = json.loads((SOURCE / "tokenizer.json").read_text())
        self.tensors = {
            name: tensor
            for name, tensor in read_safetensors(SOURCE / "model.safetensors").items()
            if not name.startswith("model.layers.") or name.startswith("model.layers.0.")
        }

    def write(self, folder):
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps(self.config))
        (folder / "tokenizer.json").write_text(json.dumps(self.tokenizer))
        (folder / "model.safetensors").write_bytes(safetensors(self.tensors))
        return folder

    def write_sharded(self, folder):
        """Two shards and an index."""
        self.write(folder)
        (folder / "model.safetensors").unlink()
        names = list(self.tensors)
        index = {"metadata": {}, "weight_map": {}}
        for number, part in enumerate((names[: len(names) // 2], names[len(names) // 2 :]), 1):
            file = f"model-{number:05}-of-00002.safetensors"
            (folder / file).write_bytes(safetensors({n: self.tensors[n] for n in part}))
            index["weight_map"] |= dict.fromkeys(part, file)
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
        return folder

    def poke(self, name, element, value):
        """Sets one f32 element."""
        dtype, shape, data = self.tensors[name]
        data = bytearray(data)
        struct.pack_into("<f", data, 4 * element, value)
        self.tensors[name] = (dtype, shape, bytes(data))

    def add(self, name, dtype, shape):
        self.tensors[name] = (dtype, shape, bytes(BYTES[dtype] * math.prod(shape)))


def shapes_of(config):
    """The tensors that a Llama config with a tied head calls for."""
    width, mlp = config["hidden_size"], config["intermediate_size"]
    q = config["num_attention_heads"] * config["head_dim"]
    kv = config["num_key_value_heads"] * config["head_dim"]
    shapes = {"model.embed_tokens.weight": [config["vocab_size"], width], "model.norm.weight": [width]}
    for i in range(config["num_hidden_layers"]):
        layer = f"model.layers.{i}."
        for name, shape in (("self_attn.q_proj", [q, width]), ("self_attn.k_proj", [kv, width]),
                            ("self_attn.v_proj", [kv, width]), ("self_attn.o_proj", [width, q]),
                            ("mlp.gate_proj", [mlp, width]), ("mlp.up_proj", [mlp, width]),
                            ("mlp.down_proj", [width, mlp]), ("input_layernorm", [width]),
                            ("post_attention_layernorm", [width])):
            shapes[f"{layer}{name}.weight"] = shape
    return shapes


def write_sparse(folder, changes):
    """A model of f32 zeros that take no room on disk: a file with holes. `changes`: to the config."""
    config = json.loads((SOURCE / "config.json").read_text()) | changes
    header, at = {}, 0
    for name, shape in shapes_of(config).items():
        end = at + 4 * math.prod(shape)
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [at, end]}
        at = end
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    text = json.dumps(header).encode()
    with open(folder / "model.safetensors", "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + at)
    return folder
