"""Where nodes come from: the trigger, the tarball daemon, the patchset daemon."""
from listener import Listener
from world import PIPELINE, Daemon, detail, utc_now
from requests import HTTPError

TREES = {
    "mainline": ("https://git.kernel.org/torvalds/linux.git", "master", "a" * 40),
    "stable": ("https://git.kernel.org/stable/linux.git", "linux-6.6.y", "b" * 40),
}
HOLDOFF = 8  # seconds
SUBMITTER = "service:pipeline"


def available(node):
    """What the tarball and patchset daemons make of a checkout."""
    version = {"version": "6", "patchlevel": "6", "extra": "-rc1"}  # numbers as text, as their Makefile reader has them
    revision = {**node["data"]["kernel_revision"], "version": version, "describe": "v6.6-rc1", "tip_of_branch": True}
    return {
        **node, "state": "available", "result": "pass", "holdoff": str(utc_now(seconds=HOLDOFF)),
        "data": {**node["data"], "kernel_revision": revision},
        "artifacts": {**(node["artifacts"] or {}), "tarball": f"https://files.example.org/{node['id']}.tar.gz"}}


class Trigger(Daemon):
    """Makes a checkout for each revision that has none."""

    def __init__(self, world):
        super().__init__(world)
        self.found = self.made = 0
        assert self.api.whoami()["username"] == PIPELINE

    def turn(self):
        for tree, (url, branch, commit) in TREES.items():
            known = self.api.count(**{
                "kind": "checkout", "data.kernel_revision.tree": tree, "data.kernel_revision.branch": branch,
                "data.kernel_revision.url": url, "data.kernel_revision.commit": commit, "owner": PIPELINE,
                "submitter": SUBMITTER, "result__ne": "incomplete", "created__gte": utc_now(days=-1).isoformat()})
            assert type(known) is int, known
            if known:
                self.found += 1
                continue
            revision = {"tree": tree, "url": url, "branch": branch, "commit": commit}
            node = {
                "name": "checkout", "path": ["checkout"], "kind": "checkout", "submitter": SUBMITTER,
                "treeid": commit[:24], "data": {"kernel_revision": revision}, "timeout": utc_now(hours=1).isoformat()}
            made = self.api.add(node)
            assert made["owner"] == PIPELINE and made["state"] == "running", made
            self.made += 1

    def report(self):
        return f"made {self.made} checkouts, found {self.found} times one that is known"


class Tarball(Listener):
    """Packs the source of a new checkout."""

    def on_event(self, event):
        wanted = {"op": "created", "kind": "checkout", "state": "running", "name": "checkout"}
        if all(event[key] == value for key, value in wanted.items()):
            node = self.api.update(available(self.api.node(event["id"])))
            assert node["data"]["kernel_revision"]["version"]["version"] == 6, node


class Patchset(Daemon):
    """Applies the patches of a checkout with some."""

    def __init__(self, world):
        super().__init__(world)
        self.patches = []

    def turn(self):
        for found in self.api.find(name="patchset", state="running"):
            node = self.api.node(found["id"])
            self.patches += [key for key in node["artifacts"] if key.startswith("patch")]
            node["data"]["kernel_revision"]["patchset"] = "c" * 64
            self.api.update(available(node))

    def report(self):
        return f"applied {self.patches}"


class Requests(Daemon):
    """What people ask of lava_callback's own routes: test this patch; run that job again."""

    def __init__(self, world):
        super().__init__(world)
        self.patched = self.retried = None

    def turn(self):
        if not self.patched:
            for checkout in self.api.find(limit=1, **{
                    "kind": "checkout", "state": "available", "data.kernel_revision.tree": "mainline"}):
                self.patched = self.copy_with_patches(checkout)
        elif not self.retried:
            for build in self.api.find(limit=1, **{
                    "kind": "kbuild", "result": "pass", "data.arch": "x86_64",
                    "data.kernel_revision.tree": "mainline"}):
                self.retried = build["id"]
                self.api.publish("node", {
                    **build, "op": "updated", "state": "available", "jobfilter": ["baseline-x86_64"],
                    "debug": {"retry_by": "somebody@example.org"}, "is_hierarchy": False})

    def copy_with_patches(self, checkout):
        copy = {**self.api.node(checkout["id"]), "name": "patchset", "path": ["checkout", "patchset"]}
        try:
            self.api.add(copy)
            raise AssertionError("a node with an id was made")
        except HTTPError as error:
            assert error.response.status_code == 400, error
            assert detail(error) == f"Object cannot be created with id: {copy['id']}", detail(error)
        del copy["id"]
        patches = {f"patch{at}": f"https://patches.example.org/{at}.mbox" for at in range(3)}
        copy.update(parent=checkout["id"], state="running", result=None, holdoff=None, artifacts=patches)
        return self.api.add(copy)["id"]

    def report(self):
        return f"asked for patchset {self.patched} and for another run of a job of {self.retried}"
