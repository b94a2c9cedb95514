"""What a build shows while it compiles, with a script in ninja's place."""

import fcntl
import os
import pathlib
import pty
import re
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import textwrap
import time
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))

import build_progress  # noqa: E402

TOOL = ROOT / "tools" / "build_progress.py"
PATIENCE = 60  # seconds: only what hangs takes so long

# Says what ninja says into a pipe: status(done, total, what) of a step that has ended.
NINJA = """
import os, pathlib, signal, sys, time

def status(done, total, what):
    form = os.environ["NINJA_STATUS"]
    print(form.replace("%f", str(done)).replace("%t", str(total)) + what, flush=True)

def compiled(done, total, name):
    status(done, total, f"Building CXX object src/CMakeFiles/gqa_core.dir/{name}.cpp.o")

"""

WARNING = "In file included from src/a.cpp:1:\nsrc/a.h:7:3: warning: [40/50] is no status"


def without_clock(said):
    """With every time as 0:00: how long things take is the machine's affair."""
    return re.sub(r"\b\d+:\d\d\b(, about [^:\x1b\r\n]* left)?", "0:00", said)


class BuildProgress(unittest.TestCase):
    def setUp(self):
        self.temporary = tempfile.TemporaryDirectory()
        self.addCleanup(self.temporary.cleanup)
        self.folder = pathlib.Path(self.temporary.name)

    def command(self, body, every="20"):
        script = self.folder / "ninja.py"
        script.write_text(NINJA + textwrap.dedent(body), "utf-8")
        return [sys.executable, "-B", str(TOOL), "--every", every, sys.executable, str(script)]

    def run_tool(self, body, **options):
        done = subprocess.run(self.command(body, **options), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, timeout=PATIENCE)
        self.assertEqual(done.stdout, b"")
        return done.returncode, without_clock(done.stderr.decode())

    def on_terminal(self, body, columns=100, term="xterm"):
        """The exit code and everything that came to a terminal."""
        main, terminal = pty.openpty()
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        tool = subprocess.Popen(self.command(body), stdin=subprocess.DEVNULL, stderr=terminal,
                                env=os.environ | {"TERM": term})
        os.close(terminal)
        said = b""
        while True:
            try:
                piece = os.read(main, 1 << 16)
            except OSError:  # the other end is closed
                break
            if not piece:
                break
            said += piece
        os.close(main)
        return tool.wait(PATIENCE), without_clock(said.decode())

    def test_a_log_has_warnings_whole_and_no_line_per_step(self):
        code, said = self.run_tool(f"""
            for i in range(200):
                compiled(i + 1, 200, f"kernels/part{{i}}")
                if i == 70: print({WARNING!r}, flush=True)
            """)
        self.assertEqual(code, 0)
        self.assertEqual(said, f"{WARNING}\ncompiled: 200 steps in {re.search('in (.*)', said.splitlines()[-1])[1]}\n")

    def test_a_log_is_not_silent_while_a_step_takes_long(self):
        code, said = self.run_tool("""
            compiled(1, 9, "kernels/quick")
            time.sleep(1)
            """, every="0.2")
        self.assertEqual(code, 0)
        lines = said.splitlines()
        self.assertGreaterEqual(lines.count("compiling: 1 of 9 steps, 0:00"), 2, said)

    def test_the_time_left_is_that_of_the_steps_so_far(self):
        steps = build_progress.Steps()
        steps.start -= 125
        steps.total = 300
        steps.done = 2
        self.assertEqual(steps.times(), "2:05")  # too early to say
        steps.done = 100
        self.assertEqual(steps.times(), "2:05, about 4 min left")

    def test_errors_are_whole_and_the_exit_code_is_the_builds(self):
        error = ("FAILED: src/b.cpp.o \ng++ -c src/b.cpp\nsrc/b.cpp:1:1: error: no\n"
                 "ninja: build stopped: subcommand failed.")
        code, said = self.run_tool(f"""
            compiled(1, 3, "b")
            print({error!r}, flush=True)
            sys.exit(7)
            """)
        self.assertEqual((code, said), (7, error + "\n"))

    def test_what_comes_without_an_end_of_line_is_shown(self):
        code, said = self.run_tool("""sys.stdout.write("killed"); sys.stdout.flush(); os.kill(os.getpid(), 9)""")
        self.assertEqual((code, said), (128 + 9, "killed\n"))

    def test_nothing_to_do_is_said(self):
        code, said = self.run_tool("""print("ninja: no work to do.")""")
        self.assertEqual((code, said), (0, "compiled: up to date\n"))

    def test_a_terminal_has_one_line_that_is_drawn_again(self):
        code, said = self.on_terminal(f"""
            compiled(1, 4, "kernels/first")
            time.sleep(0.2)
            print({WARNING!r}, flush=True)
            compiled(2, 4, "kernels/second")
            time.sleep(0.2)
            status(4, 4, "Linking CXX executable gqa")
            """)
        self.assertEqual(code, 0)
        # What a terminal shows in the end: of each line what was drawn last.
        screen = [re.split(r"\r(?!\n)|\r\x1b\[K", line.rstrip("\r"))[-1].replace("\x1b[K", "")
                  for line in said.replace("\r\n", "\n").split("\n")]
        self.assertEqual(screen[:2], WARNING.split("\n"))
        self.assertRegex(screen[2], "^compiled: 4 steps in")
        self.assertEqual(screen[3:], [""])
        self.assertIn("compiling [=====               ] 1 of 4, 0:00: src/kernels/first.cpp\x1b[K", said)
        self.assertIn("compiling [==========          ] 2 of 4, 0:00: src/kernels/second.cpp\x1b[K", said)
        self.assertIn("] 4 of 4, 0:00: Linking CXX executable gqa", said)

    def test_a_narrow_terminal_is_not_overrun(self):
        _, said = self.on_terminal("""compiled(1, 4, "kernels/a_file_with_a_long_name")""", columns=80)
        self.assertIn("1 of 4, 0:00: a_file_with_a_long_name.cpp\x1b[K", said)
        _, said = self.on_terminal("""compiled(1, 4, "a_file_whose_name_is_longer_than_the_terminal_is_wide")""",
                                   columns=40)
        drawn = re.findall(r"\r(compiling[^\x1b]*)", said)
        self.assertTrue(drawn)
        self.assertLess(max(map(len, drawn)), 40)

    def test_a_terminal_that_can_not_draw_has_a_log(self):
        _, said = self.on_terminal("""compiled(1, 1, "a")""", term="dumb")
        self.assertNotIn("\x1b", said)

    def test_a_signal_stops_the_build_and_waits_for_it(self):
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            with self.subTest(number):
                tidied = self.folder / f"tidied-{number}"
                tool = subprocess.Popen(self.command(f"""
                    def end(*_):
                        time.sleep(0.3)  # ninja ends its compilers first
                        pathlib.Path({str(tidied)!r}).touch()
                        sys.exit(2)
                    signal.signal(signal.SIGINT, end)
                    print("ready", flush=True)
                    time.sleep({PATIENCE})
                    """), stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
                self.assertEqual(tool.stderr.readline(), b"ready\n")
                begin = time.monotonic()
                tool.send_signal(number)
                tool.communicate(timeout=PATIENCE)
                # As if it had no handler, which is what a shell that waits for it has to see.
                self.assertEqual(tool.returncode, -number)
                self.assertTrue(tidied.exists())
                self.assertLess(time.monotonic() - begin, PATIENCE / 2)


if __name__ == "__main__":
    unittest.main()
