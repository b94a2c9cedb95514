"""A shell with a terminal, in which somebody types and presses the Tab key."""
import os
import pathlib
import pty
import signal
import tempfile
import threading
import time

PATIENCE = 120  # seconds: only what hangs takes so long, however busy the machine

# Ctrl-O leaves what the line holds in $LINE_FILE, at once or not at all.
BASH = """
PS1=''
bind 'set bell-style none'
show_line() { printf '%s' "$READLINE_LINE" >"$LINE_FILE.new" && mv "$LINE_FILE.new" "$LINE_FILE"; }
bind -x '"\\C-o": show_line'
source "$SCRIPT"
touch "$LINE_FILE.ready"
"""
ZSH = """
PS1=''
setopt no_auto_list no_auto_menu no_beep
autoload -Uz compinit && compinit -u -D
show_line() { print -rn -- "$BUFFER" >"$LINE_FILE.new" && mv "$LINE_FILE.new" "$LINE_FILE" }
zle -N show_line
if [[ -n $RECORD ]]; then
  compadd() {
    local -a to_record
    builtin compadd -O to_record "$@"
    ((${#to_record})) && print -rl -- "${to_record[@]}" >>"$LINE_FILE.offered"
    builtin compadd "$@"
  }
fi
bindkey -e
bindkey '^I' complete-word
bindkey '^O' show_line
source "$SCRIPT"
touch "$LINE_FILE.ready"
"""


class ShellSession:
    """With `with`: typed(text) is the line after Tab; offered(text), what could follow."""

    def __init__(self, shell, script, folder, record=False):
        """Runs in `folder`, with the completion `script` (a path) read. Record what is offered (zsh
        alone): then the line can be another."""
        self.shell, self.script, self.folder, self.record = shell, script, folder, record

    def __enter__(self):
        self.own = tempfile.TemporaryDirectory(prefix="gqa-shell-")
        self.line = pathlib.Path(self.own.name) / "line"
        start = pathlib.Path(self.own.name) / ".zshrc"
        start.write_text(ZSH if self.shell == "zsh" else BASH)
        environment = os.environ | {
            "TERM": "dumb", "HOME": str(self.folder), "ZDOTDIR": self.own.name,
            "LINE_FILE": str(self.line), "SCRIPT": str(self.script),
            "RECORD": "yes" if self.record else "",
        }
        command = {"bash": ["bash", "--noprofile", "--rcfile", str(start), "-i"],
                   "zsh": ["zsh", "-d", "-i"]}[self.shell]
        self.pid, self.terminal = pty.fork()
        if self.pid == 0:
            os.chdir(self.folder)
            os.execvpe(command[0], command, environment)
        threading.Thread(target=self._drain, daemon=True).start()
        self._wait_for(self.line.with_name("line.ready"))
        return self

    def __exit__(self, *_):
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self.terminal)
        self.own.cleanup()

    def typed(self, text):
        self.line.unlink(missing_ok=True)
        os.write(self.terminal, b"\x15" + text.encode() + b"\t\x0f")  # Ctrl-U first: an empty line
        self._wait_for(self.line)
        return self.line.read_text()

    def offered(self, text):
        found = self.line.with_name("line.offered")
        found.unlink(missing_ok=True)
        self.typed(text)
        return set(found.read_text().splitlines()) if found.exists() else set()

    def _drain(self):
        """What the terminal shows: a shell that nobody reads would wait."""
        try:
            while os.read(self.terminal, 1 << 16):
                pass
        except OSError:
            pass

    def _wait_for(self, path):
        for _ in range(PATIENCE * 100):
            if path.exists():
                return
            time.sleep(0.01)
        raise TimeoutError(f"{self.shell} never wrote {path.name}")
