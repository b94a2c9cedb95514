"""ggml: a graph of one ggml_flash_attn_ext, through the libraries that llama-cpp-python brings.

Queries and outputs are f32, the only type that it takes. There is one library call per array of a
cell and one per timed call, so that ctypes costs nothing that would show.
"""

import ctypes
import importlib.metadata
import importlib.util
import os
import pathlib

import numpy as np

import oracle
from cells import HEAD_DIM, Q_HEADS
from engine import Unsupported, Variant

F32, F16 = 0, 1
TYPES = {"f32": F32, "f16": F16, "bf16": 30, "int8": 8, "int4": 2}  # int8: Q8_0, int4: Q4_0
BLOCK = 32  # elements of Q8_0 and Q4_0 that share a scale
STRUCTURES = 1 << 20  # bytes for tensors' and graphs' descriptions, and alignment
HUGE_PAGE = 2 << 20
ABORTED = ctypes.CFUNCTYPE(None, ctypes.c_char_p)


class InitParams(ctypes.Structure):
    _fields_ = [("mem_size", ctypes.c_size_t), ("mem_buffer", ctypes.c_void_p),
                ("no_alloc", ctypes.c_bool)]


def libraries():
    """Those with the tensors and with the CPU's kernels; their functions' types declared."""
    found = importlib.util.find_spec("llama_cpp")
    if found is None:
        raise ImportError("llama-cpp-python is not installed")
    folder = pathlib.Path(found.submodule_search_locations[0]) / "lib"
    base, cpu = (ctypes.CDLL(str(folder / f"libggml-{name}.so"), ctypes.RTLD_GLOBAL)
                 for name in ("base", "cpu"))
    pointer, size, number = ctypes.c_void_p, ctypes.c_int64, ctypes.c_float
    for library, name, result, *arguments in [
            (base, "ggml_version", ctypes.c_char_p),
            (base, "ggml_init", pointer, InitParams),
            (base, "ggml_free", None, pointer),
            (base, "ggml_new_tensor_3d", pointer, pointer, ctypes.c_int, size, size, size),
            (base, "ggml_permute", pointer, pointer, pointer, *[ctypes.c_int] * 4),
            (base, "ggml_get_data", pointer, pointer),
            (base, "ggml_nbytes", ctypes.c_size_t, pointer),
            (base, "ggml_flash_attn_ext", pointer, *[pointer] * 5, *[number] * 3),
            (base, "ggml_flash_attn_back", pointer, *[pointer] * 5, ctypes.c_bool),
            (base, "ggml_set_abort_callback", pointer, ABORTED),
            (base, "ggml_new_graph", pointer, pointer),
            (base, "ggml_build_forward_expand", None, pointer, pointer),
            (base, "ggml_quantize_chunk", ctypes.c_size_t, ctypes.c_int, pointer, pointer, size,
             size, size, pointer),
            (base, "ggml_backend_graph_compute", ctypes.c_int, pointer, pointer),
            (cpu, "ggml_backend_cpu_init", pointer),
            (cpu, "ggml_backend_cpu_set_n_threads", None, pointer, ctypes.c_int)]:
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return base, cpu


def encoded(base, x, dtype):
    """Bytes of rows in ggml's type."""
    if dtype == "f32":
        return np.ascontiguousarray(x)
    if dtype == "f16":
        return np.ascontiguousarray(x.astype(np.float16))
    if dtype == "bf16":
        return oracle.bf16_bits(x)
    x = np.ascontiguousarray(x)
    out = np.empty(x.size // BLOCK * (2 + BLOCK * int(dtype[3:]) // 8), np.uint8)
    base.ggml_quantize_chunk(TYPES[dtype], x.ctypes.data, out.ctypes.data, 0, x.size // HEAD_DIM,
                             HEAD_DIM, None)
    return out


def decoded(blocks, dtype):
    """f32 of Q8_0 (f16 scale, 32 bytes) and Q4_0 (f16 scale; low halves of 16 bytes are the first
    16 elements, minus 8)."""
    blocks = blocks.reshape(-1, 2 + BLOCK * int(dtype[3:]) // 8)
    scale = blocks[:, :2].copy().view(np.float16).astype(np.float32)
    content = blocks[:, 2:]
    if dtype == "int8":
        return scale * content.view(np.int8)
    return scale * (np.concatenate([content & 15, content >> 4], 1).astype(np.float32) - 8)


class Context:
    """A ggml context in memory of numpy's, which is on huge pages where the system lets it."""

    def __init__(self, base, size):
        self.base = base
        self.memory = np.empty(size + HUGE_PAGE, np.uint8)
        start = -(-self.memory.ctypes.data // HUGE_PAGE) * HUGE_PAGE
        self.handle = base.ggml_init(InitParams(size, start, False))

    def __del__(self):
        self.base.ggml_free(self.handle)

    def tensor(self, kind, shape, content):
        tensor = self.base.ggml_new_tensor_3d(self.handle, kind, *shape)
        if content.nbytes != self.base.ggml_nbytes(tensor):
            raise Unsupported(f"sizes differ: {content.nbytes} bytes")
        ctypes.memmove(self.base.ggml_get_data(tensor), content.ctypes.data, content.nbytes)
        return tensor

    def tokens_second(self, tensor):
        """Of a tensor [dim, heads, tokens]: the same as [dim, tokens, heads]."""
        return self.base.ggml_permute(self.handle, tensor, 0, 2, 1, 3)


class Peer:
    def __init__(self, threads, cpus):
        self.base, self.cpu = libraries()
        self.version = (f"{self.base.ggml_version().decode()} (llama-cpp-python "
                        f"{importlib.metadata.version('llama-cpp-python')})")
        self.backend = self.cpu.ggml_backend_cpu_init()
        self.cpu.ggml_backend_cpu_set_n_threads(self.backend, threads)

    def graph(self, context, q, k, v, mask):
        """Of one node; with where its output lies."""
        base = self.base
        out = base.ggml_flash_attn_ext(context.handle, q, k, v, mask, HEAD_DIM ** -0.5, 0, 0)
        graph = base.ggml_new_graph(context.handle)
        base.ggml_build_forward_expand(graph, out)
        return graph, base.ggml_get_data(out)

    def variant(self, cell, data, count, tokens_first):
        """With keys and values [tokens, heads, dim], as llama.cpp keeps them, or heads first."""
        kind = TYPES[cell.dtype]
        keys_values = [encoded(self.base, x.transpose(1, 0, 2) if tokens_first else x, cell.dtype)
                       for x in (data.k, data.v)]
        mask = None
        if cell.q_len > 1:
            mask = np.triu(np.full((cell.q_len, cell.kv_len), -np.inf, np.float16), 1)
        size = (count * (sum(x.nbytes for x in keys_values) + data.q.nbytes + STRUCTURES)
                + data.q.nbytes + (mask.nbytes if cell.q_len > 1 else 0) + STRUCTURES)
        context = Context(self.base, size)
        q = context.tokens_second(context.tensor(F32, (HEAD_DIM, Q_HEADS, cell.q_len), data.q))
        if cell.q_len > 1:
            mask = context.tensor(F16, (cell.kv_len, cell.q_len, 1), mask)

        def cache(content):
            if tokens_first:
                return context.tokens_second(
                    context.tensor(kind, (HEAD_DIM, cell.kv_heads, cell.kv_len), content))
            return context.tensor(kind, (HEAD_DIM, cell.kv_len, cell.kv_heads), content)

        context.graphs = [self.graph(context, q, *map(cache, keys_values), mask)
                          for _ in range(count)]

        def call(turn):
            graph, out = context.graphs[turn % count]
            if self.base.ggml_backend_graph_compute(self.backend, graph) != 0:
                raise Unsupported("the graph failed")
            return out

        def rows(out):
            floats = (ctypes.c_float * data.q.size).from_address(out)
            return np.frombuffer(floats, np.float32).reshape(data.q.shape).astype(np.float64)

        def stored(head):
            if not cell.dtype.startswith("int"):
                return data.k[head], data.v[head]
            return tuple(decoded(encoded(self.base, x[head], cell.dtype), cell.dtype).reshape(
                cell.kv_len, HEAD_DIM) for x in (data.k, data.v))

        return Variant(call, rows, stored)

    def gradients(self):
        """Asks for ggml_flash_attn_back() in a process of its own, which it may abort."""
        context = Context(self.base, STRUCTURES)
        tensors = [context.tensor(F32, (HEAD_DIM, 2, 1), np.zeros(2 * HEAD_DIM, np.float32))
                   for _ in range(4)]
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            def tell(message):
                os.write(writer, message)
                os._exit(1)

            callback = ABORTED(tell)
            self.base.ggml_set_abort_callback(callback)
            self.base.ggml_flash_attn_back(context.handle, *tensors, True)
            os._exit(0)
        os.close(writer)
        with os.fdopen(reader, encoding="utf-8") as said:
            message = said.read().strip().rpartition("/")[2]
        _, status = os.waitpid(child, 0)
        raise Unsupported(f"ggml_flash_attn_back() aborts: {message or status}" if status else
                          "ggml_flash_attn_back() answers, but nothing here drives it")

    def variants(self, cell, data, count):
        if cell.kind == "backward":
            yield "gradients", self.gradients
            return
        yield "tokens first", lambda: self.variant(cell, data, count, True)
        if cell.kv_heads > 1:
            yield "heads first", lambda: self.variant(cell, data, count, False)
