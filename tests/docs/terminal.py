"""One reader's folder and terminal: what a block sets, the next one has; what goes on running is stopped at the end."""

import os
import pathlib
import random
import re
import shlex
import shutil
import signal
import socket
import subprocess
import time

from markdown import Mistake

ROOT = pathlib.Path(__file__).resolve().parents[2]
#: Longest time for a block, and for a server to accept connections. Generous: the machine may be busy.
PATIENCE_S = 120
#: Ports that documents name; each gets a free one.
PORTS = [8080, 8081, 9090, 9091, 3000, 6379]
PORT = re.compile(rf"(?<![\w.-])({'|'.join(map(str, PORTS))})(?!\w|\.\d)")


class Terminal:
    def __init__(self, folder: pathlib.Path, server: pathlib.Path):
        self.own = folder
        self.folder = folder / "reader"
        self.folder.mkdir()
        self.state = self.scratch("state.sh", "")
        self.place = self.scratch("place", str(self.folder))
        self.log = self.scratch("log", "")
        self.ports = {str(port): str(free_port()) for port in PORTS}
        tools = ROOT / "target/tools"
        self.env = {key: os.environ[key] for key in ("HOME", "LANG", "LD_LIBRARY_PATH", "CHROMIUM") if key in os.environ}
        self.env |= {
            "PATH": os.pathsep.join(map(str, [server.parent, tools / "venv/bin", tools / "bin", os.environ["PATH"]])),
            "PORT": self.ports["8080"],
            "MANAGEMENT_PORT": self.ports["9090"],
            # What a document installs is installed already; nothing is fetched.
            "PIP_NO_INDEX": "1",
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        self.running: list[tuple[subprocess.Popen, int]] = []
        self.output = ""

    def with_ports(self, text: str) -> str:
        """The text with the ports of this run in place of those that readers see."""
        return PORT.sub(lambda match: self.ports[match[1]], text)

    def without_ports(self, text: str) -> str:
        for seen, real in self.ports.items():
            text = re.sub(rf"\b{real}\b", seen, text)
        return text

    def scratch(self, name: str, text: str) -> pathlib.Path:
        """A file that is not in the reader's folder."""
        path = self.own / name
        path.write_text(text)
        return path

    @property
    def here(self) -> pathlib.Path:
        """Where the reader has gone with `cd`."""
        return pathlib.Path(self.place.read_text())

    def keep(self, name: str, text: str, append: bool = False) -> pathlib.Path:
        path = (self.here / name).resolve()
        if self.folder.resolve() not in path.parents:
            raise Mistake(f"`{name}` is not in the document's folder")
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a" if append else "w") as file:
            file.write(self.with_ports(text))
        return path

    def copy(self, source: pathlib.Path):
        """Begins with what a folder of the repository holds."""
        shutil.copytree(source, self.folder, dirs_exist_ok=True)
        for path in filter(pathlib.Path.is_file, self.folder.rglob("*")):
            path.write_text(self.with_ports(path.read_text()))

    def script(self, code: str) -> str:
        """What one block sets, all programs of the next ones see, too (`set -a`)."""
        return f". {self.state}\nset -aeuo pipefail\n{self.with_ports(code)}"

    def sh(self, code: str):
        keep = f"export -p >{self.state}; printf %s \"$PWD\" >{self.place}"
        self.run(["bash", "-c", f"trap '{keep}' EXIT\n{self.script(code)}"])

    def program(self, command: list[str], stdin: str):
        """Runs a program that knows what the blocks before have set."""
        self.run(["bash", "-c", self.script(f"exec {shlex.join(command)}")], self.with_ports(stdin))

    def run(self, command: list[str], stdin: str = ""):
        """Runs a program to its end; what it printed is kept for an `output` block."""
        with self.log.open("w+") as log:
            process = self.start(command, log, subprocess.PIPE)
            try:
                process.communicate(stdin.encode(), timeout=PATIENCE_S)
            except subprocess.TimeoutExpired:
                raise Mistake(f"it has not ended after {PATIENCE_S} s:\n{self.log.read_text()}") from None
            finally:
                kill(process)  # with what it has left behind
        self.output = self.without_ports(self.log.read_text())
        if process.returncode:
            raise Mistake(f"it ended with {process.returncode}:\n{self.output}")

    def background(self, code: str, until: str | None, line: int):
        """Starts what goes on running; returns when the port accepts connections."""
        log = self.log.with_suffix(f".{line}")
        with log.open("w") as file:
            process = self.start(["bash", "-c", self.script(code)], file, subprocess.DEVNULL)
        self.running.append((process, line))
        deadline = time.monotonic() + PATIENCE_S
        while until and not accepts(int(self.ports[until])):
            if process.poll() is not None or time.monotonic() > deadline:
                raise Mistake(f"nothing listens on port {until}:\n{log.read_text()}")
            time.sleep(0.02)

    def start(self, command: list[str], log, stdin) -> subprocess.Popen:
        return subprocess.Popen(
            command, cwd=self.here, env=self.env, stdin=stdin, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )

    def stop(self):
        """As Ctrl-C does in all the other windows; whoever has failed before is a mistake."""
        for process, line in reversed(self.running):
            status = process.poll()
            kill(process)
            if status:
                raise Mistake(f"what line {line} started has ended with {status}:\n{self.log.with_suffix(f'.{line}').read_text()}")
        self.running = []

    def close(self):
        for process, _ in self.running:
            kill(process)


def kill(process: subprocess.Popen):
    """With all that it started."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()


def free_port() -> int:
    """Below those that the system hands out: a document may need it minutes later."""
    while True:
        port = random.randrange(10_000, 30_000)
        try:
            with socket.create_server(("0.0.0.0", port)):
                return port
        except OSError:
            pass


def accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
        return True
    except OSError:
        return False
