#!/usr/bin/env python3
"""Runs a build by ninja and says how far it is.

usage: build_progress.py [--every SECONDS] COMMAND ...     such as: cmake --build build/release

On a terminal one line is drawn again and again; elsewhere a line comes now and then (every 20 seconds). Everything
else that the build says, such as warnings and errors, goes to standard error as it is. The exit code is the command's.
"""

import argparse
import os
import re
import selectors
import signal
import subprocess
import sys
import time

from duration import clock, duration

# Ninja puts this before what it says of a step. No compiler begins a line with it.
MARK = b"\x1e"
STEP = re.compile(MARK + rb"(\d+)/(\d+)" + MARK + rb" ?(.*)")
OBJECT = re.compile(r"Building \w+ object (.*?)CMakeFiles/[^/]+\.dir/(.*)\.o$")
NOTHING_TO_DO = b"ninja: no work to do."
BAR_CELLS = 20


class Stopped(BaseException):
    """A signal asked us to stop."""


def file_of(step):
    """The source file that a step compiles; of other steps what ninja says."""
    found = OBJECT.match(step)
    return found[1] + found[2] if found else step


class Steps:
    """How far the build is."""

    def __init__(self):
        self.start = time.monotonic()
        self.done = self.total = 0
        self.last = ""

    def elapsed(self):
        return time.monotonic() - self.start

    def left(self):
        """Seconds, if the rest goes on as it went so far; None while that would be a guess."""
        if self.done < 3 or self.elapsed() < 5:
            return None
        return self.elapsed() / self.done * (self.total - self.done)

    def times(self):
        left = self.left()
        return clock(self.elapsed()) + ("" if left is None else f", about {duration(left)} left")


class Line:
    """A line at the bottom of a terminal."""

    every = 1  # seconds, so that it is seen to live

    def __init__(self):
        self.shown = False

    def erase(self):
        if self.shown:
            write(b"\r\x1b[K")
        self.shown = False

    def draw(self, steps):
        # One column stays free: a full line would wrap on some terminals.
        room = max(columns() - 1, 1)
        text = f"compiling {steps.times()}"
        if steps.total > 0:
            full = BAR_CELLS * steps.done // steps.total
            text = (f"compiling [{'=' * full}{' ' * (BAR_CELLS - full)}] {steps.done} of {steps.total},"
                    f" {steps.times()}: ")
            fits = len(text) + len(steps.last) <= room
            text += steps.last if fits else steps.last.rpartition("/")[2]
        write(b"\r" + text[:room].encode() + b"\x1b[K")
        self.shown = True


class Log:
    """Where there is no terminal: whole lines, far apart."""

    def __init__(self, every):
        self.every = every

    def erase(self):
        pass

    def draw(self, steps):
        of = f"{steps.done} of {steps.total} steps, " if steps.total else ""
        write(f"compiling: {of}{steps.times()}\n".encode())


def columns():
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns or 80
    except OSError:
        return 80


def write(data):
    sys.stderr.buffer.write(data)
    sys.stderr.buffer.flush()


class Watch:
    """Reads what the build says and shows it."""

    def __init__(self, output, view):
        self.output, self.view = output, view
        self.steps = Steps()
        self.rest = b""
        self.drawn = self.steps.start

    def take(self, line):
        step = STEP.match(line)
        if step:
            self.steps.done, self.steps.total = int(step[1]), int(step[2])
            self.steps.last = file_of(step[3].decode(errors="replace").strip())
        elif line.rstrip() != NOTHING_TO_DO:
            self.view.erase()
            write(line)

    def draw(self):
        self.drawn = time.monotonic()
        self.view.draw(self.steps)

    def follow(self):
        """Until the build has ended."""
        with selectors.DefaultSelector() as selector:
            selector.register(self.output, selectors.EVENT_READ)
            while True:
                wait = self.drawn + self.view.every - time.monotonic()
                if wait <= 0:
                    self.draw()
                elif selector.select(wait):
                    said = os.read(self.output.fileno(), 1 << 16)
                    if not said:
                        break
                    self.take_all(said)

    def take_all(self, said):
        *lines, self.rest = (self.rest + said).split(b"\n")
        for line in lines:
            self.take(line + b"\n")
        if lines and isinstance(self.view, Line):
            self.draw()

    def finish(self, failed):
        self.view.erase()
        if self.rest:
            write(self.rest + b"\n")
        if not failed:
            steps = self.steps
            write(f"compiled: {steps.done} steps in {duration(steps.elapsed())}\n".encode() if steps.done
                  else b"compiled: up to date\n")


def stop(number, _frame):
    raise Stopped(number)


def run(command, view):
    """The exit code; as a shell's where a signal ended the command."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop)
    environment = os.environ | {"NINJA_STATUS": f"{MARK.decode()}%f/%t{MARK.decode()} "}
    # In a group of its own, all of which a signal reaches, whoever sent it.
    build = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                             env=environment, start_new_session=True)
    watch = Watch(build.stdout, view)
    try:
        if isinstance(view, Line):
            watch.draw()
        watch.follow()
    except Stopped as stopped:
        os.killpg(build.pid, signal.SIGINT)
        view.erase()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        build.stdout.read()  # until ninja has ended its compilers and removed what they left half done
        build.wait()
        # As if there were no handler, so that a shell knows and ends, too.
        signal.signal(stopped.args[0], signal.SIG_DFL)
        os.kill(os.getpid(), stopped.args[0])
    except BaseException:
        os.killpg(build.pid, signal.SIGINT)
        raise
    code = build.wait()
    watch.finish(code != 0)
    return code if code >= 0 else 128 - code


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--every", type=float, default=20, metavar="SECONDS",
                        help="without a terminal: a line so often")
    parser.add_argument("command", nargs=argparse.REMAINDER, help="what builds")
    args = parser.parse_args()
    if not args.command:
        parser.error("which command?")
    terminal = sys.stderr.isatty() and os.environ.get("TERM", "dumb") != "dumb"
    return run(args.command, Line() if terminal else Log(args.every))


if __name__ == "__main__":
    sys.exit(main())
