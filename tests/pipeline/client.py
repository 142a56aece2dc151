"""The client that KernelCI's Python daemons use (kernelci-core), written anew from what it sends and expects.

A session per call, retries on 5xx and on lost connections with every verb, 60 seconds of patience, page loops, long
polls. Besides, it looks at each answer: errors are JSON with a `detail`, dates are what Python 3.9 reads.
"""
import json, re
from datetime import datetime
from urllib.parse import urljoin

import requests
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

TIMEOUT = 60
RETRIED = [500, 502, 503, 504, 521]
PAGE = 100
NODE_KEYS = set(
    "id kind name path group parent state result artifacts data debug jobfilter platform_filter created updated timeout"
    " holdoff owner submitter treeid user_groups processed_by_kcidb_bridge retry_counter".split())
DATES = ("created", "updated", "timeout", "holdoff", "timestamp", "ts", "last_poll", "time")
# `datetime.fromisoformat` before Python 3.11: what `isoformat` writes, no `Z`, a fraction of 3 or 6 digits.
DATE = re.compile(r"\d{4}-\d\d-\d\d(.\d\d(:\d\d(:\d\d(\.\d{3}(\d{3})?)?)?)?([+-]\d\d:\d\d(:\d\d(\.\d{6})?)?)?)?", re.S)


def date(text):
    """Reads a date as Python 3.9 does."""
    if not DATE.fullmatch(text):
        raise ValueError(f"Invalid isoformat string: {text!r}")
    return datetime.fromisoformat(text)


def look_at_dates(value):
    """Every date in an answer can be read."""
    if isinstance(value, dict):
        for key, member in value.items():
            if key in DATES and member is not None:
                date(member)
            elif key != "data":  # free-form
                look_at_dates(member)
    elif isinstance(value, list):
        for item in value:
            look_at_dates(item)


class Counted(Retry):
    """Counts what was retried, in all sessions."""

    retried = 0

    def increment(self, *arguments, **details):
        Counted.retried += 1
        return super().increment(*arguments, **details)


class Api:
    """One user's access."""

    def __init__(self, url, token=None):
        self.url, self.token = url, token

    def call(self, verb, path, params=None, **body):
        """Makes a request and returns the JSON of the answer; `HTTPError` with a JSON body for any 4xx."""
        retry = Counted(total=5, backoff_factor=1, status_forcelist=RETRIED, allowed_methods=[verb])
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        with requests.Session() as session:
            session.mount("http://", HTTPAdapter(max_retries=retry))
            answer = session.request(
                verb, urljoin(self.url, f"latest/{path}"), params=params, headers=headers, timeout=TIMEOUT, **body)
        if answer.status_code >= 400:
            assert "detail" in json.loads(answer.content), (verb, path, answer.text)
            answer.raise_for_status()
        assert answer.headers["content-type"] == "application/json", (verb, path, answer.headers)
        # What was sent with an offset comes back with it from POST, `Z` included; no client reads a date there.
        if verb != "POST":
            look_at_dates(answer.json())
        return answer.json()

    def get(self, path, params=None):
        return self.call("GET", path, params)

    def post(self, path, body=None, params=None):
        return self.call("POST", path, params, json=body)

    def put(self, path, body, params=None):
        return self.call("PUT", path, params, json=body)

    def login(self, username, password):
        return self.call("POST", "user/login", data={"username": username, "password": password})["access_token"]

    def whoami(self):
        return self.get("whoami")

    # Nodes

    def node(self, node_id):
        """A node, or None."""
        node = self.get(f"node/{node_id}")
        assert node is None or set(node) == NODE_KEYS, node
        return node

    def find(self, path="nodes", limit=None, **params):
        """All items of all pages, or `limit` of them."""
        if limit:
            return self.get(path, {**params, "limit": limit})["items"]
        found = []
        while True:
            page = self.get(path, {**params, "limit": PAGE, "offset": len(found)})
            found += page["items"]
            assert page["limit"] == PAGE and len(page["items"]) <= PAGE, (path, params, len(page["items"]))
            if len(page["items"]) < PAGE:
                return found

    def find_fast(self, **params):
        return self.get("nodes/fast", params)

    def count(self, **params):
        return self.get("count", params)

    def add(self, node):
        return self.post("node", node)

    def update(self, node):
        """Replaces a node by what was read and changed."""
        node = {**node, "data": {**node["data"]}}
        if node["result"] != "incomplete" and node["data"].get("error_code") == "node_timeout":
            node["data"]["error_code"] = node["data"]["error_msg"] = None
        return self.put(f"node/{node['id']}", node)

    def bulk_set(self, nodes, field, value):
        return self.put("batch/nodeset", {"nodes": nodes, "field": field, "value": value})

    def submit_results(self, results, root):
        """Writes a node with everything beneath it in one request."""
        parent = self.node(root["parent"])
        base = {"group": root["group"], "state": "done"}
        tree = {"node": {**self.node(root["id"]), **results["node"]}, "child_nodes": results["child_nodes"]}
        return self.put(f"nodes/{root['id']}", complete(tree, parent, base))

    # Events

    def subscribe(self, channel, promiscuous=False, subscriber_id=None):
        """The number of a new subscription; a name makes it durable."""
        params = {"promisc": promiscuous, "subscriber_id": subscriber_id}
        return self.post(f"subscribe/{channel}", params=params)["id"]

    def receive_event(self, subscription, block=True):
        """The next event; without `block` None when only a keep-alive comes."""
        while True:
            message = self.get(f"listen/{subscription}")
            if not message["data"]:
                continue
            assert message["type"] == "message" and message["pattern"] is None, message
            event = json.loads(message["data"])
            look_at_dates(event)
            if event["data"] != "BEEP":
                return event
            if not block:
                return None

    def publish(self, channel, data):
        return self.post(f"publish/{channel}", {"data": data})


def complete(results, parent, base):
    """Gives the nodes of a hierarchy the fields that labs leave out."""
    node = {"kind": parent["kind"], **results["node"], **base}
    node["path"] = [*parent["path"], node["name"]]
    return {"node": node, "child_nodes": [complete(child, node, base) for child in results["child_nodes"]]}
