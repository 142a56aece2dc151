"""The server under test as a process: on a free port, with data of its own, ended and started again."""
import os, re, socket, subprocess, time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BINARY = os.environ.get("KERNELCI_LIVE") or ROOT / "target" / "debug" / "kernelci-live"
PASSWORD = "a password for the pipeline"
KEEP_ALIVE = 2  # seconds


class Server:
    """`services` are the MongoDB and Redis to use, as environment variables; without them the embedded store."""

    def __init__(self, folder, services):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/"
        self.folder, self.process = Path(folder), None
        self.environment = {
            "PATH": os.environ["PATH"], "KCI_INITIAL_PASSWORD": PASSWORD, "KEEP_ALIVE_PERIOD": str(KEEP_ALIVE),
            "SECRET_KEY": "a secret for the pipeline, long enough", "DRAIN_MS": "200", **services}

    def start(self):
        log = self.folder / "log"
        before = log.stat().st_size if log.exists() else 0
        with open(log, "a") as out:
            self.process = subprocess.Popen(
                [BINARY, "serve", "--listen", f"127.0.0.1:{self.port}", "--data", self.folder / "data"],
                cwd=self.folder, env=self.environment, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
        end = time.monotonic() + 120  # a new database with all its indexes
        while not re.search(rf"http://127\.0\.0\.1:{self.port}", self.printed(before)):
            if self.process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"the server does not start\n{self.printed()[-4000:]}")
            time.sleep(0.05)

    def stop(self):
        """Asks it to end, and makes it after a while; returns whether it ended by itself."""
        if self.process is None or self.process.poll() is not None:
            return True
        self.process.terminate()
        try:
            return self.process.wait(60) == 0
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            return False

    def printed(self, begin=0):
        """What it logged, from this byte on."""
        return (self.folder / "log").read_bytes()[begin:].decode(errors="replace")

    def errors(self):
        """What it logged that it should not have."""
        return [line for line in self.printed().splitlines() if "ERROR" in line or "panicked" in line]
