"""Who looks on: send_kcidb, the monitor, the telemetry emitter, the example tools, somebody whom nothing concerns."""
import queue
from collections import Counter
from datetime import datetime, timedelta

import requests
from client import NODE_KEYS, date
from listener import Listener
from world import PIPELINE, Daemon


class KcidbEvents(Listener):
    """The half of send_kcidb that sees everybody's events."""

    user, promiscuous = "kcidb", True

    def on_event(self, event):
        if event["state"] == "done" and event["is_hierarchy"]:
            self.api.find(parent=event["id"])


class KcidbNodes(Daemon):
    """The half of send_kcidb that sends finished nodes and marks them as sent."""

    user = "kcidb"

    def __init__(self, world):
        super().__init__(world)
        self.sent = Counter()
        assert self.api.whoami()["username"] == self.user

    def turn(self):
        now = datetime.utcnow()
        nodes = self.api.find_fast(
            state="done", processed_by_kcidb_bridge=False, created__gt=(now - timedelta(days=4)).isoformat(),
            updated__lt=now.isoformat(), limit=500)
        ids = [node["id"] for node in nodes]
        if ids:
            changed = self.api.bulk_set(ids, "processed_by_kcidb_bridge", "True")
            assert changed == len(ids), (changed, len(ids))
            self.sent.update(ids)

    def report(self):
        return f"sent {len(self.sent)} nodes"


class Monitor(Listener):
    """Prints every event; has no durable place."""

    durable = False

    def on_event(self, event):
        message = self.events[-1]
        assert date(message["time"]).tzinfo, message
        ", ".join(str(event[key]) for key in ("kind", "id", "state", "result", "name", "data"))


class Bystander(Listener):
    """Owns nothing and did not ask for what others own: hears the keep-alives alone."""

    user, durable = "bystander", False


class Telemetry(Daemon):
    """Sends records in batches."""

    most, sent, batches = 50, 0, 0

    def turn(self):
        batch = []
        try:
            while len(batch) < self.most:
                batch.append(self.world.telemetry.get_nowait())
        except queue.Empty:
            pass
        if batch:
            assert self.api.post("telemetry", batch) == {"inserted": len(batch)}
            self.sent += len(batch)
            self.batches += 1

    def report(self):
        return f"sent {self.sent} records in {self.batches} batches"


class Example(Daemon):
    """The example tools: ask for the jobs that have ended since the last answer."""

    def __init__(self, world):
        super().__init__(world)
        self.last, self.jobs = datetime.utcnow().isoformat(), []

    def turn(self):
        for event in self.api.get("events", {
                "kind": "job", "state": "done", "limit": 100, "recursive": "true", "from": self.last}):
            assert event["node"]["id"] == event["data"]["id"] and event["node"]["kind"] == "job", event
            self.jobs.append(event["node"]["id"])
            self.last = event["timestamp"]

    def report(self):
        return f"saw {len(self.jobs)} jobs end"


class KciDev(Daemon):
    """`kci-dev maestro watch`: asks for the nodes of a tree by itself, and sends its token without `Bearer`."""

    def __init__(self, world):
        super().__init__(world)
        self.seen, self.troubles = {}, 0
        assert self.ask(f"node/{'f' * 24}") is None

    def ask(self, path, **params):
        headers = {"Authorization": self.world.api[PIPELINE].token}
        try:
            answer = requests.get(f"{self.world.url}latest/{path}", params, headers=headers, timeout=30)
            answer.raise_for_status()
            return answer.json()
        except requests.RequestException:
            self.troubles += 1  # it asks again later
            return []

    def turn(self):
        for node in self.ask("nodes/fast", treeid="a" * 24, state__ne="running", limit=1000, offset=0):
            assert set(node) == NODE_KEYS, node
            self.seen[node["id"]] = node["state"]

    def report(self):
        return f"saw {len(self.seen)} nodes of a tree, {self.troubles} requests failed"
