"""What a conversion says that it takes, beside what it takes."""
import json
import pathlib
import sys
import unittest

import gqa_case
from model_folder import write_sparse

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "tools"))
from bench_convert import run_watched  # noqa: E402


class MemoryTest(gqa_case.GqaCase):
    def check(self, verb, changes, *args, tolerance):
        """The peak of a conversion of a model of one layer, held against the estimate and the bound. A peak that
        is polled may be missed, on a busy machine most of all, but is never too high: one run must come close."""
        source = write_sparse(self.place(), {"num_hidden_layers": 1, "head_dim": 128} | changes)
        layer = (source / "model.safetensors").stat().st_size
        layer -= 4 * 512 * changes["hidden_size"]
        out, close = self.place(), False
        for _ in range(20):
            _, peak, report = run_watched(
                [gqa_case.GQA, verb, source, out, "--force", "--json", "--quiet", *args], pause=0)
            estimate = json.loads(report)["peak_memory_bytes"]
            self.assertLessEqual(peak, 3 * layer + 256e6)
            self.assertLessEqual(peak, estimate + tolerance * estimate)
            close = close or peak >= estimate - tolerance * estimate
            if close:
                return estimate
        self.fail(f"estimate {estimate}, but no more than {peak} is taken")

    def test_merging(self):
        self.check("convert", {
            "hidden_size": 2048, "intermediate_size": 1024, "num_attention_heads": 16,
            "num_key_value_heads": 16}, "--kv-heads", "8", tolerance=0.05)

    def test_large_tensors_come_in_pieces(self):
        """Matrices of 67 MB each, whatever happens to them, take a few pieces."""
        model = {"hidden_size": 1024, "intermediate_size": 16384, "num_attention_heads": 8, "num_key_value_heads": 2}
        for args in ([], ["--dtype", "bf16"]):
            with self.subTest(args):
                self.assertLess(self.check("expand", model, *args, tolerance=0.25), 16e6)


if __name__ == "__main__":
    unittest.main()
