"""What makes nodes out of events: the scheduler and job_retry."""
from datetime import datetime, timedelta

from listener import Listener
from world import PIPELINE, RUNTIME, utc_now

BUILDS = {"kbuild-gcc-12-x86_64": "x86_64", "kbuild-clang-17-arm64": "arm64"}
JOBS = ("baseline", "kselftest")
MOST_RETRIES = 2
LOST = ("stable", "kselftest-x86_64")  # the job that the lab never answers for
LOST_TIMEOUT = 3  # seconds


class Scheduler(Listener):
    """Makes the builds of a checkout and the jobs of a build, and hands them to their runtime."""

    def __init__(self, world, channel):
        self.channel = channel
        super().__init__(world, f"Scheduler-{channel}")
        self.made = []

    def on_event(self, event):
        # On the edge only: what is published by hand has no previous state.
        if event["state"] != "available" or event.get("previous_state") == "available":
            return
        if event["kind"] == "checkout":
            for name, arch in BUILDS.items():
                self.build(event, name, arch)
        elif event["kind"] == "kbuild" and event["result"] == "pass":
            for test in JOBS:
                name = f"{test}-{event['data']['arch']}"
                if event.get("jobfilter") is None or name in event["jobfilter"]:
                    self.job(event, name)

    def make(self, parent, name, kind, data, timeout=None, **fields):
        """core's `create_job_node`, then the submission with what the runtime says; `timeout` (seconds) begins there."""
        source = self.api.node(parent)
        revision = source["data"]["kernel_revision"]
        assert revision["version"]["version"] == 6 and revision["version"]["patchlevel"] == 6, revision
        node = self.api.add({
            "kind": kind, "parent": source["id"], "name": name, "path": [*source["path"], name], "group": name,
            "treeid": source["treeid"], "submitter": source["submitter"], "artifacts": source["artifacts"],
            "data": {"kernel_revision": revision, **data}, **fields})
        node["data"]["job_id"] = f"job-{node['id']}"
        if timeout:
            node["timeout"] = utc_now(seconds=timeout).isoformat()
        node = self.api.update(node)
        assert node["owner"] == PIPELINE and node["data"]["job_id"], node
        self.world.emit("job_submission", node_id=node["id"], job_name=name, tree=revision["tree"])
        self.made.append(node["id"])
        return node

    def build(self, event, name, arch):
        node = self.make(event["id"], name, "kbuild", {"arch": arch, "defconfig": "defconfig", "runtime": "k8s-all"})
        self.world.builds.put(node["id"])

    def job(self, event, name):
        platform = f"board-{event['data']['arch']}"
        tree = event["data"]["kernel_revision"]["tree"]
        # How often this board was used of late; a naive local time with a blank.
        self.api.find(limit=1, **{
            "kind": "job", "data.platform": platform, "created__gte": str(datetime.now() - timedelta(days=1))})
        first_run = not event.get("debug") and not event.get("retry_counter")
        wait = LOST_TIMEOUT if (tree, name) == LOST and first_run else 3600
        node = self.make(
            event["id"], name, "job", {"arch": event["data"]["arch"], "platform": platform, "runtime": RUNTIME},
            retry_counter=event.get("retry_counter", 0), debug=event.get("debug") or {},
            platform_filter=event.get("platform_filter"), timeout=wait)
        self.world.boards.put((node["id"], wait == 3600))

    def report(self):
        return f"made {len(self.made)} nodes; {super().report()}"


class JobRetry(Listener):
    """Asks for another run of jobs that the lab could not finish."""

    def __init__(self, world):
        super().__init__(world)
        self.asked = 0

    def on_event(self, event):
        if (event["kind"], event["state"], event["result"]) != ("job", "done", "incomplete"):
            return
        job = self.api.node(event["id"])
        if job["data"].get("error_code") == "node_timeout" or job["retry_counter"] >= MOST_RETRIES:
            return
        build = self.api.node(job["parent"])
        while build["kind"] not in ("kbuild", "checkout"):
            build = self.api.node(build["parent"])
        self.api.publish("retry", {
            **build, "op": "updated", "state": "available", "jobfilter": [job["name"]],
            "platform_filter": [job["data"]["platform"]], "retry_counter": job["retry_counter"] + 1,
            "debug": {"retry_of": job["id"]}})
        self.asked += 1

    def report(self):
        return f"asked for {self.asked} retries; {super().report()}"
