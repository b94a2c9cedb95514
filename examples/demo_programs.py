"""Runs `gqa` for the demo, several at a time, and ends all of them when one fails or somebody wants to stop."""

import concurrent.futures
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time


# Once freed, memory stays with the program. By glibc's default much of it goes back to the system and is fetched again,
# page by page, which takes a seventh of a conversion's time; models as small as the demo's need little of it anyway.
KEEP_MEMORY = "glibc.malloc.trim_threshold=134217728:glibc.malloc.mmap_threshold=33554432"

# Not a session of its own, where that can be helped: `nice` says who goes first inside a session alone, since Linux
# shares processors out among sessions.
OWN_GROUP = {"process_group": 0} if sys.version_info >= (3, 11) else {"start_new_session": True}


class Failed(Exception):
    """A gqa command failed, and that was said."""

    def __init__(self, code):
        super().__init__(code)
        self.code = code


class Screen:
    """Messages on standard error. Below them, on a terminal, a line that is drawn again and again; elsewhere what it
    would say is written now and then."""

    every = 30  # seconds

    def __init__(self):
        self.terminal = sys.stderr.isatty() and os.environ.get("TERM", "dumb") != "dumb"
        self.lock = threading.Lock()
        self.drawn = False
        self.said = time.monotonic()

    def say(self, text):
        with self.lock:
            self._erase()
            self._write(text + "\n")
            self.said = time.monotonic()

    def draw(self, text):
        if not self.terminal:
            if time.monotonic() - self.said >= self.every:
                self.say(text)
            return
        with self.lock:
            try:
                columns = os.get_terminal_size(sys.stderr.fileno()).columns or 80
            except OSError:
                columns = 80
            # One column stays free: a full line would wrap on some terminals.
            self._write(f"\r{text[:max(columns - 1, 1)]}\x1b[K")
            self.drawn = True

    def erase(self):
        with self.lock:
            self._erase()

    def _erase(self):
        if self.drawn:
            self._write("\r\x1b[K")
            self.drawn = False

    def _write(self, text):
        print(text, end="", file=sys.stderr, flush=True)


class Programs:
    """Runs one gqa from as many threads as wanted."""

    def __init__(self, gqa, screen):
        self.gqa, self.screen = gqa, screen
        self.lock = threading.Lock()
        self.running = set()
        self.stopped = False
        self.reason = None  # a failure, if that was it

    def run(self, *arguments, nice=0, told=None):
        """A verb's JSON object. Its messages are for `told`, line by line, or else are not asked for; errors are
        always shown. Of several that run, those with a lower `nice` go first."""
        command = [str(self.gqa), *map(str, arguments), "--json"]
        if told is None:
            command.append("--quiet")
        with tempfile.TemporaryFile() as output:
            process = self._begin(["nice", "-n", str(nice), *command], output)
            try:
                for line in process.stderr:
                    self._pass_on(line.decode(errors="replace").rstrip("\n"), told)
                code = process.wait()
            except BaseException:  # a signal
                self.stop()
                process.wait()
                raise
            finally:
                with self.lock:
                    self.running.discard(process)
            if code != 0:
                self._report(command, code)
            output.seek(0)
            return json.loads(output.read())

    def _begin(self, command, output):
        with self.lock:
            if self.stopped:
                raise Failed(130)
            # In a group of its own: a Ctrl-C reaches it once, from us. A second one would kill it.
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.PIPE,
                                       env={"GLIBC_TUNABLES": KEEP_MEMORY} | os.environ, **OWN_GROUP)
            self.running.add(process)
            return process

    def _pass_on(self, line, told):
        if self.stopped:
            return
        if told is None or line.startswith(("gqa: error:", "warning:")):
            self.screen.say(line)
        else:
            told(line)

    def _report(self, command, code):
        failure = Failed(code)
        if self.stop(failure):
            self.screen.say(f"demo: `{' '.join(command)}` ended with exit code {code}")
        raise failure

    def stop(self, reason=None):
        """Nothing more is begun, and what runs ends as if interrupted: cleanly. False if that was asked for before."""
        with self.lock:
            if self.stopped:
                return False
            self.stopped, self.reason = True, reason
            for process in self.running:
                process.send_signal(signal.SIGINT)
            return True

    def kill(self):
        with self.lock:
            for process in self.running:
                process.kill()

    def side_by_side(self, works, watch, finished):
        """Calls each of `works` in a thread of its own, `finished(result)` for each as it ends, and `watch()` now and
        then meanwhile."""
        with concurrent.futures.ThreadPoolExecutor(len(works)) as pool:
            waiting = {pool.submit(work) for work in works}
            try:
                while waiting:
                    watch()
                    done, waiting = concurrent.futures.wait(waiting, timeout=1,
                                                            return_when=concurrent.futures.FIRST_COMPLETED)
                    for work in done:
                        if work.exception():
                            # The first one to fail; others may have failed because it did.
                            raise self.reason or work.exception()
                        finished(work.result())
            except BaseException:
                self.stop()
                try:
                    pool.shutdown()
                except KeyboardInterrupt:  # again: no more patience
                    self.kill()
                raise
