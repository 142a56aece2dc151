"""What the daemons of one run share: users, queues between the simulated parts, what went wrong, when to stop."""
import queue, threading, traceback
from collections import Counter
from datetime import datetime, timedelta, timezone

from client import Api
from requests import HTTPError
from server import PASSWORD

RUNTIME = "lava-lab"
PIPELINE = "staging.kernelci.org"
USERS = {  # name: groups
    PIPELINE: [],
    "lab": [f"runtime:{RUNTIME}:node-editor"],
    "kcidb": ["node:edit:any"],
    "bystander": [],
}


class World:
    def __init__(self, url):
        self.url, self.stopping, self.failures = url, threading.Event(), []
        self.builds, self.boards, self.callbacks, self.telemetry = (queue.Queue() for _ in range(4))
        self.emitted = Counter()
        self.api = {"admin": Api(url, Api(url).login("admin", PASSWORD))}
        for name, groups in USERS.items():
            self.api[name] = self.invited(name, groups)

    def invited(self, name, groups):
        """Makes a user: invited by the admin, the password set with the token of the invitation."""
        admin = self.api["admin"]
        for group in groups:
            if not admin.find("user-groups", name=group):
                admin.post("user-groups", {"name": group})
        invite = admin.post("user/invite", {
            "username": name, "email": f"{name.split('.')[0]}@example.org", "groups": groups, "send_email": False,
            "return_token": True})
        user = Api(self.url).post("user/accept-invite", {"token": invite["token"], "password": PASSWORD})
        assert user["is_verified"] and [group["name"] for group in user["groups"]] == groups, user
        api = Api(self.url, Api(self.url).login(name, PASSWORD))
        assert api.whoami()["username"] == name
        return api

    def emit(self, kind, **fields):
        """Hands a telemetry record to the emitter."""
        self.emitted[kind] += 1
        self.telemetry.put({"kind": kind, "runtime": RUNTIME, **fields})


class Daemon(threading.Thread):
    """A thread that ends with the run; what it raises ends the run."""

    user = PIPELINE

    def __init__(self, world, name=None):
        super().__init__(name=name or type(self).__name__, daemon=True)
        self.world, self.api = world, world.api[self.user]

    def run(self):
        try:
            self.work()
        except Exception:
            if not self.world.stopping.is_set():
                self.world.failures.append(f"{self.name}: {traceback.format_exc()}")

    def work(self):
        """Does `turn` again and again."""
        while not self.world.stopping.wait(0.4):
            self.turn()

    def report(self):
        return ""


class Worker(Daemon):
    """Takes things from a queue."""

    def work(self):
        while not self.world.stopping.is_set():
            try:
                thing = self.todo().get(timeout=0.3)
            except queue.Empty:
                continue
            self.do(thing)


def utc_now(**ahead):
    """Now and a while, with its offset."""
    return datetime.now(timezone.utc) + timedelta(**ahead)


def detail(error: HTTPError):
    return error.response.json()["detail"]
