"""Conversions that signals stop, and that go on."""
import os
import random
import signal
import subprocess
import time
import unittest

import gqa_case
from gqa_case import files
from model_folder import write_sparse
from resume_case import JOURNAL, PART, ResumeCase


class ResumeTest(ResumeCase):
    def setUp(self):
        super().setUp()
        # 100 MB in many tensors, so that there is time to stop and something to keep.
        self.source = write_sparse(self.place(), {
            "num_hidden_layers": 12, "hidden_size": 512, "intermediate_size": 1408,
            "num_attention_heads": 8, "num_key_value_heads": 8, "head_dim": 64})
        self.command = ["convert", self.source, self.out, "--kv-heads", "2",
                        "--max-shard-size", "20MB", "--resume", "--quiet"]
        whole = self.root / "whole"
        self.assertEqual(self.gqa("convert", self.source, whole, *self.command[3:-2], "--quiet").returncode, 0)
        self.want = files(whole)

    def start(self, command):
        return subprocess.Popen([gqa_case.GQA, *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                stdin=subprocess.DEVNULL)

    def stop(self, command, how, seconds):
        """Exit code and messages of a run that gets a signal once it has begun to write, some time later."""
        run = self.start(command)
        while run.poll() is None and not os.listdir(self.work):
            time.sleep(0.001)
        time.sleep(seconds)
        run.send_signal(how)
        _, said = run.communicate(timeout=gqa_case.PATIENCE)
        return run.returncode, said.decode()

    def test_ctrl_c_says_how_to_go_on(self):
        code, said = self.stop(self.command, signal.SIGINT, 0)
        self.assertEqual(code, 75, said)
        self.assertRegex(said, r"\Agqa: error: .*work/out: stopped \(interrupted\); .* the same command goes on\n\Z")
        self.assertEqual(self.left(), [PART, JOURNAL])
        done = self.gqa(*self.command)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.expect_whole()

    def test_signals_at_any_moment(self):
        draw = random.Random(1)
        stopped = 0
        for turn in range(60):
            how = draw.choice((signal.SIGINT, signal.SIGTERM, signal.SIGKILL))
            code, said = self.stop(self.command, how, draw.uniform(0, 0.08))
            self.assertIn(code, (0, 75, -signal.SIGKILL, -how), said)  # -how: before there was a handler
            if self.is_done(code):
                break
            stopped += 1
        else:
            code = self.gqa(*self.command).returncode
            self.assertEqual(code, 0)
        self.assertGreater(stopped, 0)
        if code == 0:
            self.expect_whole()

    def test_a_full_disk(self):
        limit = ["prlimit", "--fsize=12000000"]
        done = subprocess.run([*limit, gqa_case.GQA, *self.command], stdin=subprocess.DEVNULL,
                              stderr=subprocess.PIPE, timeout=gqa_case.PATIENCE)
        self.assertEqual(done.returncode, 75, done.stderr)
        self.assertRegex(done.stderr.decode(), "File too large.*the same command goes on")
        self.assertEqual(self.gqa(*self.command).returncode, 0)
        self.expect_whole()

    def test_remains_of_another_conversion(self):
        self.stop(self.command, signal.SIGKILL, 0.02)
        other = [*self.command, "--merge", "first"]
        done = self.gqa(*other)
        self.assertEqual(done.returncode, 73)
        self.assertIn(b"options: merge", done.stderr)
        done = self.gqa(*other, "--force")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(self.left(), ["out"])

    def test_killed_without_resume(self):
        command = [word for word in self.command if word != "--resume"]
        self.assertEqual(self.stop(command, signal.SIGKILL, 0.01)[0], -signal.SIGKILL)
        self.assertEqual(len(os.listdir(self.work)), 1)
        self.assertEqual(self.gqa(*command).returncode, 0)
        self.expect_whole()


if __name__ == "__main__":
    unittest.main()
