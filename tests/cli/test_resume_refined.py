"""Refined conversions that signals stop: what goes on has the bytes of a run without a stop, and fits no layer twice."""
import json
import random
import re
import shutil
import signal
import struct
import subprocess
import time
import unittest

import gqa_case
from gqa_case import files
from model_folder import SOURCE, ModelFolder, read_safetensors, safetensors
from resume_case import JOURNAL, ResumeCase
from verb_case import HELDOUT

LAYERS = 4
STOPS = 20
SIGNALS = signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL
LINE = re.compile(r"layer (\d+): error \S+ -> \S+, held out \(\d+ of \d+ steps\)(?:; about .* left)?(.*)")


def bf16(data):
    """f32 values cut to bf16."""
    return b"".join(data[i + 2:i + 4] for i in range(0, len(data), 4))


def some_layers():
    """The shipped model's first layers, with biases, in f32, beside bf16 weights: both are rounded when written."""
    model = ModelFolder()
    model.config |= {"num_hidden_layers": LAYERS, "attention_bias": True}
    draw = random.Random(5)
    kept = re.compile(rf"(?!model\.layers\.)|model\.layers\.[0-{LAYERS - 1}]\.")
    model.tensors = {}
    for name, (dtype, shape, data) in read_safetensors(SOURCE / "model.safetensors").items():
        if not kept.match(name):
            continue
        attention = re.fullmatch(r"(.*self_attn\.._proj)\.weight", name)
        model.tensors[name] = ("BF16", shape, bf16(data)) if attention else (dtype, shape, data)
        if attention:
            values = [draw.gauss(0, 0.1) for _ in range(shape[0])]
            model.tensors[f"{attention[1]}.bias"] = ("F32", shape[:1], struct.pack(f"<{len(values)}f", *values))
    return model


class ResumeRefinedTest(ResumeCase):
    def setUp(self):
        super().setUp()
        self.source = some_layers().write(self.place())
        self.text = self.file("text.txt", HELDOUT.read_text("utf-8")[:6000])
        options = ["--kv-heads", "2", "--grouping", "neighbour", "--calibrate", self.text, "--calibrate-tokens", "384",
                   "--sampled-tokens", "16", "--refine", "24", "--threads", "2"]
        self.command = ["convert", self.source, self.out, *options, "--resume"]
        begun = time.monotonic()
        whole = self.gqa("convert", self.source, self.root / "whole", *options, "--json")
        self.seconds = time.monotonic() - begun
        self.assertEqual(whole.returncode, 0, whole.stderr)
        self.want = files(self.root / "whole")
        self.refined = json.loads(whole.stdout)["refined"]
        self.assertEqual([layer["layer"] for layer in self.refined], list(range(LAYERS)))

    def start(self):
        return subprocess.Popen([gqa_case.GQA, *self.command], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                                stdin=subprocess.DEVNULL, text=True)

    def stop(self, how, layers, seconds):
        """Exit code of a run that gets a signal some time after it has refined so many layers; which layers it
        refined, and which it took over."""
        run = self.start()
        said = []
        while sum(self.fresh(line) for line in said) < layers and (line := run.stderr.readline()):
            said.append(line)
        time.sleep(seconds)
        run.send_signal(how)
        _, rest = run.communicate(timeout=gqa_case.PATIENCE)
        said += rest.splitlines()
        found = [LINE.match(line) for line in said]
        refined = [int(line[1]) for line in found if line and not line[2]]
        taken_over = [int(line[1]) for line in found if line and line[2]]
        return run.returncode, refined, taken_over

    def stop_behind(self, layers):
        """Leaves what a killed run had written when so many layers were refined, but the last of these maybe."""
        while self.is_done(self.stop(signal.SIGKILL, layers, 0)[0]):  # it was too quick
            shutil.rmtree(self.out)

    def fresh(self, line):
        match = LINE.match(line)
        return bool(match) and not match[2]

    def test_signals_at_any_moment(self):
        draw = random.Random(3)
        stops, hit, ended = 0, set(), 0
        done = 0  # layers that earlier runs must have left
        while stops < STOPS or done:
            enough = stops >= STOPS
            how = draw.choice(SIGNALS)
            layers = LAYERS if enough else draw.choice((0, 0, 1, 1, 2))
            code, refined, taken_over = self.stop(how, layers, draw.uniform(0, self.seconds / LAYERS))
            self.assertIn(code, (0, 75, -how))  # -how: killed, or before there was a handler
            if refined or code == 0:
                self.assertEqual(taken_over, list(range(len(taken_over))))
                self.assertGreaterEqual(len(taken_over), done)
                self.assertEqual(refined, list(range(len(taken_over), len(taken_over) + len(refined))))
            if refined:
                done = refined[-1]  # the last one may not be written
            if self.is_done(code):
                if code == 0:
                    self.expect_whole()
                shutil.rmtree(self.out)
                ended += 1
                done = 0
            else:
                stops += 1
                hit.add(len(taken_over) + len(refined))
        self.assertGreater(ended, 1)
        self.assertGreaterEqual(len(hit), 3)

    def test_reports_layers_that_were_taken_over(self):
        self.stop_behind(3)
        run = self.gqa(*self.command, "--json")
        self.assertEqual(run.returncode, 0, run.stderr)
        result = json.loads(run.stdout)["refined"]
        taken_over = [layer.pop("taken_over") for layer in result]
        self.assertEqual(taken_over[:2] + taken_over[3:], [True, True, False])
        self.assertEqual(result, [{k: v for k, v in layer.items() if k != "taken_over"} for layer in self.refined])
        self.assertRegex(run.stderr.decode(), "layer 1: error .* steps\\); taken over from the run that was stopped")
        self.expect_whole()

    def test_a_layer_that_is_partly_written_is_done_again(self):
        self.stop_behind(3)
        journal = self.work / JOURNAL
        lines = journal.read_text().splitlines(keepends=True)
        last = max(i for i, line in enumerate(lines) if "layers.1.self_attn.v_proj.weight" in line)
        journal.write_text("".join(lines[:last]))
        run = self.gqa(*self.command, "--json")
        self.assertEqual(run.returncode, 0, run.stderr)
        self.assertEqual([layer["taken_over"] for layer in json.loads(run.stdout)["refined"]],
                         [True, False, False, False])
        self.expect_whole()


if __name__ == "__main__":
    unittest.main()
