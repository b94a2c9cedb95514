"""What is compared: one call of attention each, 32 query heads of size 128."""

import dataclasses

Q_HEADS = 32
HEAD_DIM = 128
QUICK_DTYPES = {"prefill": ("f16",), "backward": ("f32",)}  # all of others


@dataclasses.dataclass(frozen=True)
class Cell:
    """`decode` is one query token against kv_len keys, `prefill` a causal prompt of kv_len,
    `backward` the gradients of queries, keys and values of such a prompt from those of outputs."""

    kind: str
    kv_len: int
    dtype: str  # of keys and values, and of queries and outputs unless it is int8 or int4
    kv_heads: int
    threads: int

    @property
    def q_len(self):
        return 1 if self.kind == "decode" else self.kv_len

    @property
    def group(self):
        return Q_HEADS // self.kv_heads

    @property
    def q_dtype(self):
        return "f32" if self.dtype.startswith("int") else self.dtype

    def title(self):
        return (f"{self.kind} {self.kv_len} {self.dtype} kv-heads {self.kv_heads} "
                f"threads {self.threads}")


def all_cells(threads):
    """In the order of the table."""
    shapes = [("decode", kv_len, dtype, 8) for kv_len in (32768, 8192)
              for dtype in ("f32", "f16", "bf16", "int8", "int4")]
    shapes += [("decode", 32768, "f16", kv_heads) for kv_heads in (32, 1)]
    shapes += [(kind, 2048, dtype, 8) for kind in ("prefill", "backward")
               for dtype in ("f32", "f16", "bf16")]
    return [Cell(*shape, threads=n) for n in threads for shape in shapes]


def quick_cells(threads):
    """A look within a minute or two: each dtype once, all threads."""
    return [cell for cell in all_cells(threads[-1:])
            if cell.kv_len != 32768 and cell.dtype in QUICK_DTYPES.get(cell.kind, (cell.dtype,))]
