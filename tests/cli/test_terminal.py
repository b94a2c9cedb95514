"""Streams, terminals and signals: what goes where, and what is left after a stop."""
import json
import math
import os
import pty
import re
import signal
import socket
import subprocess
import threading
import time
import unittest

import gqa_case
from model_folder import SOURCE, write_sparse
from verb_case import HELDOUT


class StreamTest(gqa_case.GqaCase):
    def reports(self):
        """A command of each kind that writes to standard output."""
        return {
            "help": ["--help"],
            "inspect": ["inspect", SOURCE],
            "eval": ["eval", SOURCE, "--text", self.text],
            "generate": ["generate", SOURCE, "--prompt", "a", "--max-tokens", "2"],
            "verify": ["verify", SOURCE, "--json"],
            "doctor": ["doctor", "--json"],
            "convert": ["convert", SOURCE, self.root / "out", "--kv-heads", "2", "--dry-run"],
        }

    def test_no_escape_codes_without_a_terminal(self):
        for name, args in self.reports().items():
            with self.subTest(name):
                done = self.gqa(*args)
                self.assertEqual(done.returncode, 0, done.stderr)
                self.assertNotRegex(done.stdout + done.stderr, rb"[\x1b\r]")

    def test_quiet_leaves_data_alone(self):
        for name, args in self.reports().items():
            if name == "help":
                continue
            with self.subTest(name):
                done = self.gqa(*args, "--quiet")
                self.assertEqual((done.returncode, done.stderr), (0, b""))
                self.assertNotEqual(done.stdout, b"")

    def test_messages_unless_quiet(self):
        generate = ["generate", SOURCE, "--prompt", "a", "--max-tokens", "2"]
        self.assertIn(b"2 tokens", self.gqa(*generate).stderr)
        convert = ["convert", SOURCE, self.root / "a", "--kv-heads", "2"]
        done = self.gqa(*convert)
        self.assertEqual(done.stdout, b"")
        self.assertIn(b"8 -> 2", done.stderr)
        announced, reported = done.stderr.decode().splitlines()
        self.assertRegex(announced, "writing .* of memory; KV cache per token .* -> ")
        self.assertIn("done", reported)
        done = self.gqa(*convert, "--quiet", "--force")
        self.assertEqual((done.returncode, done.stdout, done.stderr), (0, b"", b""))
        done = self.gqa(*convert, "--quiet")
        self.assertEqual(done.returncode, 73)
        self.assertIn(b"gqa: error: ", done.stderr)

    def test_full_device(self):
        for name, args in self.reports().items():
            with self.subTest(name), open("/dev/full", "wb") as full:
                done = self.gqa(*args, stdout=full)
                self.assertEqual(done.returncode, 74, done.stderr)
                self.assertIn(b"gqa: error: standard output", done.stderr)

    def test_closed_output(self):
        for name, args in self.reports().items():
            with self.subTest(name):
                done = self.gqa(*args, stdout=None, preexec_fn=lambda: os.close(1))
                self.assertEqual(done.returncode, 74, done.stderr)

    def test_broken_pipe(self):
        for name, args in self.reports().items():
            with self.subTest(name):
                reader, writer = os.pipe()
                os.close(reader)
                done = self.gqa(*args, stdout=writer)
                os.close(writer)
                self.assertEqual((done.returncode, done.stderr), (74, b""))

    def test_messages_are_one_printable_line(self):
        done = self.gqa("inspect", "no\n\x1b[31m\u0085such")
        self.assertEqual(done.returncode, 66)
        self.assertRegex(done.stderr, rb"\Agqa: error: [^\n\x1b]+\n\Z")
        self.assertNotIn("\u0085", done.stderr.decode())

    def test_text_comes_as_it_is_made(self):
        """A write for each piece: this kind of socket keeps them apart, whatever the timing."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ours, theirs:
            prompt = "Once upon a time"
            done = self.gqa("generate", SOURCE, "--prompt", prompt, "--max-tokens", "20",
                            stdout=theirs)
            theirs.close()
            pieces = list(iter(lambda: ours.recv(1 << 16).decode(), ""))
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertTrue("".join(pieces).startswith(prompt))
        self.assertGreater(len(pieces), 20)


class LongWork(gqa_case.GqaCase):
    def long_text(self, seconds):
        """A text that takes about this long to evaluate on this machine."""
        done = self.gqa("eval", SOURCE, "--text", HELDOUT, "--json")
        repeats = math.ceil(seconds / json.loads(done.stdout)["seconds"])
        return self.file("long.txt", HELDOUT.read_bytes() * repeats)

    def wait_for_handlers(self, run):
        """Until the program catches SIGINT: before that the signal just kills it."""
        for _ in range(gqa_case.PATIENCE * 100):
            with open(f"/proc/{run.pid}/status") as status:
                caught = next(line for line in status if line.startswith("SigCgt:"))
            if int(caught.split()[1], 16) >> (signal.SIGINT - 1) & 1:
                return
            time.sleep(0.01)
        self.fail("the program never caught SIGINT")


class ProgressTest(LongWork):
    def screen(self, args, **environment):
        """What a terminal on standard error receives."""
        master, slave = pty.openpty()
        received = []

        def read():
            try:
                while data := os.read(master, 4096):
                    received.append(data)
            except OSError:  # the last writer has closed it
                pass

        reader = threading.Thread(target=read)
        reader.start()
        try:
            done = subprocess.run([gqa_case.GQA, *args], stdout=subprocess.PIPE, stderr=slave,
                                  stdin=subprocess.DEVNULL, timeout=gqa_case.PATIENCE,
                                  env=dict(os.environ, TERM="xterm") | environment)
        finally:
            os.close(slave)
            reader.join()
            os.close(master)
        self.assertEqual(done.returncode, 0, received)
        return b"".join(received).decode(), done.stdout

    def test_long_work(self):
        args = ["eval", SOURCE, "--text", self.long_text(seconds=4)]
        screen, out = self.screen(args)
        self.assertRegex(screen, r"\r[^\r\n]*\[=* *\][^\r]* \d+ %")
        self.assertIn("\x1b[36m", screen)
        self.assertRegex(screen, r"\r +\r\Z", "not erased")
        self.assertNotIn(b"\r", out)
        screen, _ = self.screen(args, NO_COLOR="1")
        self.assertIn("%", screen)
        self.assertNotIn("\x1b", screen)
        self.assertEqual(self.screen([*args, "--quiet"])[0], "")

    def test_refining_says_where_it_is(self):
        screen, _ = self.screen(["convert", SOURCE, self.root / "out", "--kv-heads", "4", "--calibrate", HELDOUT,
                                 "--calibrate-tokens", "1024", "--sampled-tokens", "0", "--refine", "60"], NO_COLOR="1")
        self.assertRegex(screen, r"\rrefine: layer [0-5] \([1-6] of 6\), step \d+ of 60 \[=* *\] +\d+ %  \d[^\r]* left")
        lines = re.findall(r"layer \d: error [^\r\n]*", screen)
        self.assertEqual(len(lines), 6)
        self.assertRegex(lines[0], "steps\\); about .* left")
        self.assertNotIn("left", lines[-1])

    def test_short_work_draws_nothing(self):
        self.assertEqual(self.screen(["--help"])[0], "")


class InterruptTest(LongWork):
    def big_model(self):
        """1.2 GB of zeros that take no room on disk."""
        return write_sparse(self.place(), {
            "num_hidden_layers": 6, "hidden_size": 2048, "intermediate_size": 5632,
            "num_attention_heads": 16, "num_key_value_heads": 16, "head_dim": 128})

    def start(self, *args):
        return subprocess.Popen([gqa_case.GQA, *args], stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE, stdin=subprocess.DEVNULL)

    def stopped(self, run, how):
        run.send_signal(how)
        out, said = run.communicate(timeout=gqa_case.PATIENCE)
        self.assertEqual((run.returncode, out), (130, b""), said)
        self.assertTrue(said.endswith(b"gqa: error: interrupted\n"), said)

    def test_convert_leaves_nothing(self):
        model = self.big_model()
        before = gqa_case.snapshot(self.root)
        names = set(os.listdir(self.root))
        for how in signal.SIGINT, signal.SIGTERM:
            with self.subTest(how):
                run = self.start("convert", model, self.root / "out", "--kv-heads", "4")
                while run.poll() is None and set(os.listdir(self.root)) == names:
                    time.sleep(0.002)  # until it has begun to write
                self.stopped(run, how)
                self.assertEqual(gqa_case.snapshot(self.root), before)

    def test_eval(self):
        run = self.start("eval", SOURCE, "--text", self.long_text(seconds=8))
        self.wait_for_handlers(run)
        self.stopped(run, signal.SIGINT)


if __name__ == "__main__":
    unittest.main()
