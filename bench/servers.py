"""The servers under comparison: how each is started, pinned to one core, and what it costs while it runs."""

import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
TICKS = os.sysconf("SC_CLK_TCK")
# Python servers import for seconds on a cold disk.
START_LIMIT_S = 60


@dataclass(frozen=True)
class Kind:
    """A row of the tables."""

    name: str
    path: str
    command: tuple  # with {port} and {udp} in it

    def __str__(self):
        return self.name


def kinds(streamfleet):
    dev = (str(streamfleet), "dev", "--listen", "127.0.0.1:{port}", "--udp", "127.0.0.1:{udp}", "--admin-listen", "127.0.0.1:0", "--loops", "1")
    python = sys.executable
    return [
        Kind("FastRTC 0.0.34", "", (python, str(HERE / "servers/fastrtc_echo.py"), "{port}")),
        Kind("aiortc 1.16", "", (python, str(HERE / "servers/aiortc_echo.py"), "{port}")),
        Kind("Streamfleet, frames", "/echo-frames", dev),
        Kind("Streamfleet, encoded", "/echo", dev),
    ]


def free_port(kind):
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def cpu_s(pid):
    """User and system time of all threads of a process, seconds (proc(5): fields 14 and 15 of stat)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


class Server:
    """A running server on core `core`; a context manager."""

    def __init__(self, kind, core):
        port, udp = free_port(socket.SOCK_STREAM), free_port(socket.SOCK_DGRAM)
        command = [part.format(port=port, udp=udp) for part in kind.command]
        self.address = ("127.0.0.1", port)
        self.url = f"http://127.0.0.1:{port}{kind.path}"
        # taskset holds for every thread; a pool of them on one core would only switch.
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            ["taskset", "-c", str(core), *command], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment
        )
        os.set_blocking(self.process.stderr.fileno(), False)

    def __enter__(self):
        deadline = time.monotonic() + START_LIMIT_S
        while True:
            try:
                socket.create_connection(self.address, 1).close()
                break
            except OSError:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    said = (self.process.stderr.read() or b"").decode(errors="replace")
                    self.stop()
                    raise RuntimeError(f"the server did not start: {' '.join(self.process.args)}\n{said}") from None
                time.sleep(0.1)
        # Imports and first allocations that end after the port is open.
        time.sleep(1)
        return self

    def __exit__(self, *_):
        self.stop()

    def stop(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self.process.stderr.close()

    def drain_log(self):
        """Keeps the pipe from filling: a server blocked on its log would look slow."""
        while self.process.stderr.read(65536):
            pass

    def cpu_s(self):
        return cpu_s(self.process.pid)

    def resident_bytes(self):
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
        raise RuntimeError("the server has ended")
