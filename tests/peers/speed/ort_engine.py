"""ONNX Runtime: GroupQueryAttention (com.microsoft) and Attention (opset 24), one node each."""

import os

import numpy as np
import onnxruntime as ort
from onnx import TensorProto, helper
from onnxruntime.capi import onnxruntime_pybind11_state as bindings

from cells import HEAD_DIM, Q_HEADS
from engine import Unsupported, Variant

TYPES = {"f32": np.float32, "f16": np.float16, "int8": np.int8, "int4": np.uint8}
ONNX_TYPES = {np.float32: TensorProto.FLOAT, np.float16: TensorProto.FLOAT16,
              np.int8: TensorProto.INT8, np.uint8: TensorProto.UINT8, np.int32: TensorProto.INT32}
SPREAD = 4.5  # what is beyond so many standard deviations is clipped when quantised


def gradients():
    """Looks for the means: operators of training, or what builds graphs of gradients."""
    operators = {schema.name for schema in bindings.get_all_operator_schema()}
    found = [name for name in sorted(operators) if "Attention" in name and "Grad" in name]
    if hasattr(bindings, "GradientGraphBuilder"):
        found.append("GradientGraphBuilder")
    raise Unsupported(f"it has {', '.join(found)}, which nothing here drives" if found else
                      f"none of its {len(operators)} operators is attention's gradient, and it "
                      "builds no graph of gradients")


def value(array):
    return ort.OrtValue.ortvalue_from_numpy(array)


class Quantised:
    """Symmetric, with one scale for all or one for each KV head and dimension. int4: a byte holds
    elements 2 i (low) and 2 i + 1, each plus 8."""

    def __init__(self, data, dtype, per_channel):
        self.most = {"int8": 127, "int4": 7}[dtype]
        kv_heads = data.k.shape[0]
        shape = (1, kv_heads, 1, HEAD_DIM) if per_channel else (1,)
        self.scale = np.full(shape, SPREAD / self.most, np.float32)
        self.k, self.v = (self.quantised(x) for x in (data.k, data.v))

    def quantised(self, x):
        return np.clip(np.rint(x * (self.most / SPREAD)), -self.most - 1, self.most).astype(np.int8)

    def packed(self, x):
        if self.most == 127:
            return x
        nibbles = (x + 8).astype(np.uint8)
        return nibbles[..., 0::2] | nibbles[..., 1::2] << 4

    def stored(self, head):
        return tuple(x[head].astype(np.float32) * (SPREAD / self.most) for x in (self.k, self.v))


class Peer:
    def __init__(self, threads, cpus):
        self.version = ort.__version__
        self.options = ort.SessionOptions()
        self.options.intra_op_num_threads = threads
        self.options.inter_op_num_threads = 1
        self.options.log_severity_level = 3
        if threads > 1:
            # Of all threads but the one that calls; it counts from 1.
            self.options.add_session_config_entry(
                "session.intra_op_thread_affinities", ";".join(str(cpu + 1) for cpu in cpus[1:]))
            os.sched_setaffinity(0, cpus[:1])

    def session(self, node, inputs, outputs):
        """Of one node; inputs and outputs are name -> array."""
        def infos(arrays):
            return [helper.make_tensor_value_info(name, ONNX_TYPES[array.dtype.type], array.shape)
                    for name, array in arrays.items()]
        graph = helper.make_graph([node], "attention", infos(inputs), infos(outputs))
        model = helper.make_model(graph, ir_version=10, opset_imports=[
            helper.make_opsetid("", 24), helper.make_opsetid("com.microsoft", 1)])
        try:
            return ort.InferenceSession(model.SerializeToString(), self.options,
                                        providers=["CPUExecutionProvider"])
        except Exception as problem:  # of many classes, one for each status
            raise Unsupported(str(problem).splitlines()[0]) from problem

    def variant(self, cell, node, caches, stored):
        """`caches`: of each that takes turns, the arrays of inputs and of outputs. Outputs are
        allocated once; where one has an input's array, it is written in place."""
        session = self.session(node, *caches[0])
        bound = []
        for inputs, outputs in caches:
            binding = session.io_binding()
            held = {id(a): value(a) for a in [*inputs.values(), *outputs.values()]}
            for name, array in inputs.items():
                binding.bind_ortvalue_input(name, held[id(array)])
            for name, array in outputs.items():
                binding.bind_ortvalue_output(name, held[id(array)])
            bound.append((binding, outputs["out"], held))

        def call(turn):
            binding, out, _ = bound[turn % len(bound)]
            try:
                session.run_with_iobinding(binding)
            except Exception as problem:
                raise Unsupported(str(problem).splitlines()[0]) from problem
            return out

        def rows(out):
            return out.reshape(cell.q_len, Q_HEADS, HEAD_DIM).astype(np.float64)

        return Variant(call, rows, stored)

    def grouped(self, cell, data, count, per_channel=None):
        """GroupQueryAttention. Decoding appends its token to a cache in place; a prompt's cache is
        an output."""
        dtype = TYPES[cell.q_dtype]
        quantised = None if per_channel is None else Quantised(data, cell.dtype, per_channel)
        k, v = ((quantised.packed(quantised.k), quantised.packed(quantised.v)) if quantised
                else (x.astype(dtype) for x in (data.k, data.v)))
        new = {name: np.ascontiguousarray(
            x[:, cell.kv_len - cell.q_len:].transpose(1, 0, 2).astype(dtype)).reshape(
                1, cell.q_len, -1) for name, x in (("k", data.k), ("v", data.v))}
        q = data.q.astype(dtype).reshape(1, cell.q_len, -1)
        ints = {"seqlens_k": np.array([cell.kv_len - 1], np.int32),
                "total": np.array([cell.kv_len], np.int32)}
        decode = cell.kind == "decode"
        names = ["q", "k", "v", "past_k" if decode else "", "past_v" if decode else "",
                 "seqlens_k", "total"]
        attributes = {"num_heads": Q_HEADS, "kv_num_heads": cell.kv_heads}
        scales = {}
        if quantised:
            names += [""] * 5 + ["scale", "scale"]
            scales["scale"] = quantised.scale
            kind = "PER_CHANNEL" if per_channel else "PER_TENSOR"
            attributes |= {"k_quant_type": kind, "v_quant_type": kind,
                           "kv_cache_bit_width": int(cell.dtype[3:])}
        node = helper.make_node("GroupQueryAttention", names, ["out", "present_k", "present_v"],
                                domain="com.microsoft", **attributes)
        caches = []
        for _ in range(count):
            past = {"k": k[None].copy(), "v": v[None].copy()}
            inputs = {"q": q, **new, **ints, **scales}
            if decode:
                inputs |= {"past_k": past["k"], "past_v": past["v"]}
            else:
                inputs |= {name: array.copy() for name, array in new.items()}
            caches.append((inputs, {"out": np.empty_like(q), "present_k": past["k"],
                                    "present_v": past["v"]}))
        return self.variant(cell, node, caches, quantised.stored if quantised
                            else lambda head: (data.k[head], data.v[head]))

    def attention(self, cell, data, count):
        """Attention of ONNX itself, keys and values where they are: nothing is appended."""
        dtype = TYPES[cell.dtype]
        q = np.ascontiguousarray(data.q.transpose(1, 0, 2).astype(dtype))[None]
        node = helper.make_node("Attention", ["q", "k", "v"], ["out"],
                                is_causal=int(cell.q_len > 1))
        caches = [({"q": q, "k": data.k.astype(dtype)[None], "v": data.v.astype(dtype)[None]},
                   {"out": np.empty_like(q)}) for _ in range(count)]
        variant = self.variant(cell, node, caches, lambda head: (data.k[head], data.v[head]))
        variant.rows = lambda out: out[0].transpose(1, 0, 2).astype(np.float64)
        return variant

    def variants(self, cell, data, count):
        if cell.kind == "backward":
            yield "gradients", gradients
        elif cell.dtype.startswith("int"):
            yield "GroupQueryAttention, a scale per channel", lambda: self.grouped(
                cell, data, count, True)
            yield "GroupQueryAttention, one scale", lambda: self.grouped(cell, data, count, False)
        elif cell.dtype in TYPES:
            yield "GroupQueryAttention", lambda: self.grouped(cell, data, count)
            yield "Attention-24", lambda: self.attention(cell, data, count)
