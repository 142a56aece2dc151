"""What brings nodes to their end: timeout, holdoff, closing; each finds the nodes that are due, again and again."""
from requests import HTTPError
from world import PIPELINE, Daemon, detail, utc_now


class Closer(Daemon):
    def __init__(self, world):
        super().__init__(world)
        self.ended = []
        assert self.api.whoami()["username"] == PIPELINE

    def change(self, node, **fields):
        """Updates a node; that it has gone further meanwhile is no error."""
        try:
            self.api.update({**node, **fields})
            self.ended.append(f"{node['kind']} {fields['state']}")
        except HTTPError as error:
            if error.response.status_code != 400 or not detail(error).startswith("Transition not allowed"):
                raise

    def children_done(self, node):
        return all(child["state"] == "done" for child in self.api.find(parent=node["id"]))

    def report(self):
        return ", ".join(f"{self.ended.count(what)} {what}" for what in sorted(set(self.ended)))


class Timeout(Closer):
    """Ends what never reported."""

    def turn(self):
        for state in ("running", "available", "closing"):
            for node in self.api.find(state=state, timeout__lt=utc_now().isoformat(), owner=PIPELINE):
                data = {**node["data"], "error_code": "node_timeout", "error_msg": "Node timed-out"}
                self.change(node, state="done", result="incomplete", data=data)


class Holdoff(Closer):
    """Ends what was available for long enough, or lets it wait for its children."""

    def turn(self):
        for node in self.api.find(state="available", holdoff__lt=utc_now().isoformat(), owner=PIPELINE):
            self.change(node, state="done" if self.children_done(node) else "closing")


class Closing(Closer):
    """Ends what has only waited for its children."""

    def turn(self):
        for node in self.api.find(state="closing", owner=PIPELINE):
            if self.children_done(node):
                self.change(node, state="done")
