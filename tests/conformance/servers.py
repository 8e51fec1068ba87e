"""The servers under test: one that is started here and ended by its process id, or one that runs already."""

import asyncio
import os
import socket
import subprocess
import tempfile
import time
import urllib.parse
from pathlib import Path

from case import Promise

HERE = Path(__file__).parent
TICKS = os.sysconf("SC_CLK_TCK")
# FastRTC imports Gradio, and numba compiles for librosa: seconds, and minutes the first time on a busy machine.
START_LIMIT_S = 240
# A server that is asked to end and has sessions left may finish them; this one has no claim to.
STOP_LIMIT_S = 3


def had_s(pid):
    """User and system time of a process (proc(5): fields 14 and 15 of stat)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def waited_s(pid):
    """How long its threads were ready to run, and had no core (schedstat, in nanoseconds)."""
    threads = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((thread / "schedstat").read_text().split()[1]) for thread in threads) / 1e9


class Running:
    """A server that somebody else started, at `url`."""

    def __init__(self, url, promise):
        self.url, self.promise = url.rstrip("/"), promise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    async def load(self, seconds):
        """What the server's process does in the next `seconds`: cores that it had, and cores that it would have had
        on a machine without other work."""
        pid = self.pid()
        had, waited = had_s(pid), waited_s(pid)
        await asyncio.sleep(seconds)
        had, waited = had_s(pid) - had, waited_s(pid) - waited
        return {"cores": round(had / seconds, 2), "wanted_cores": round((had + waited) / seconds, 2)}

    async def idle_load(self):
        """The least of what it does in three seconds: what a session costs all the time, and not what others have left to do."""
        return min([await self.load(1) for _ in range(3)], key=lambda load: load["wanted_cores"])

    def pid(self):
        """The process that listens on the port of `url`, which must be on this machine."""
        port = f":{urllib.parse.urlsplit(self.url).port:04X}"
        sockets = set()
        for table in ("/proc/net/tcp", "/proc/net/tcp6"):
            for line in Path(table).read_text().splitlines()[1:]:
                fields = line.split()
                # State 0A is LISTEN.
                if fields[1].endswith(port) and fields[3] == "0A":
                    sockets.add(f"socket:[{fields[9]}]")
        for process in Path("/proc").glob("[0-9]*"):
            try:
                if any(os.readlink(fd) in sockets for fd in (process / "fd").iterdir()):
                    return int(process.name)
            except OSError:
                continue
        raise RuntimeError(f"no process of this machine listens at {self.url}")


class FastRtc(Running):
    """The real FastRTC with the services of docs/conformance.md, on a free port of the loopback interface."""

    def __init__(self, python):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        super().__init__(f"http://127.0.0.1:{self.port}", Promise.FASTRTC)
        self.python = python

    def __enter__(self):
        self.log = tempfile.TemporaryFile()
        quiet = {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
        # The server ends when its standard input does: also when this process was killed.
        self.process = subprocess.Popen(
            [self.python, str(HERE / "fastrtc_server.py"), str(self.port)],
            stdin=subprocess.PIPE,
            stdout=self.log,
            stderr=self.log,
            env={**os.environ, **quiet},
        )
        deadline = time.monotonic() + START_LIMIT_S
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return self
            except OSError:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    self.__exit__()
                    raise RuntimeError("FastRTC did not start; its log is above") from None
                time.sleep(0.1)

    def __exit__(self, *error):
        self.process.stdin.close()
        try:
            self.process.wait(STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.log.seek(0)
        if error == ():
            print(self.log.read().decode(errors="replace"))
        self.log.close()

    def pid(self):
        return self.process.pid
