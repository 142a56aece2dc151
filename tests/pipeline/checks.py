"""What must be true of a run: when it is over, and whether everything was seen, done and sent, once."""
from collections import Counter

from listener import Listener
from runtimes import TESTS, UNSTABLE
from scheduling import BUILDS, JOBS, LOST, MOST_RETRIES
from world import PIPELINE

CHECKOUTS = [("mainline", "checkout"), ("mainline", "patchset"), ("stable", "checkout")]
RETRIES = MOST_RETRIES * sum(tree == UNSTABLE[0] for tree, _ in CHECKOUTS)


def expected_jobs():
    """(tree, name, retry) and how often: each checkout's, the retries of the unstable one, and the asked one."""
    jobs = Counter()
    for tree, _ in CHECKOUTS:
        for arch in BUILDS.values():
            for test in JOBS:
                job = (tree, f"{test}-{arch}")
                jobs.update((*job, retry) for retry in range(MOST_RETRIES + 1 if job == UNSTABLE else 1))
    jobs["mainline", "baseline-x86_64", 0] += 1
    return jobs


def tree_of(node):
    return node["data"]["kernel_revision"]["tree"]


def made_jobs(nodes):
    jobs = [node for node in nodes if node["kind"] == "job" and node["name"] != "suite"]
    return jobs, Counter((tree_of(job), job["name"], job["retry_counter"]) for job in jobs)


def over(world, listeners):
    """Whether nothing more is to come."""
    api = world.api["admin"]
    nodes = api.find()
    return (
        made_jobs(nodes)[1] == expected_jobs()
        and all(node["state"] == "done" and node["processed_by_kcidb_bridge"] for node in nodes)
        and world.telemetry.empty() and len(api.find("telemetry")) == world.emitted.total()
        and all(len(listener.events) >= len(due(listener)) for listener in listeners))


def due(listener):
    """The numbers of the events that a subscription must have brought."""
    events = listener.api.get("events", {"channel": listener.channel, "limit": 0})
    return [event["sequence_id"] for event in events
            if listener.promiscuous or event["owner"] in (None, listener.user)]


def check_nodes(world):
    nodes = world.api["admin"].find()
    jobs, made = made_jobs(nodes)
    assert made == expected_jobs(), (made - expected_jobs(), expected_jobs() - made)
    builds = Counter((node["parent"], node["name"]) for node in nodes if node["kind"] == "kbuild")
    assert len(builds) == len(CHECKOUTS) * len(BUILDS) and set(builds.values()) == {1}, builds
    checkouts = sorted((tree_of(node), node["name"]) for node in nodes if node["kind"] == "checkout")
    assert checkouts == CHECKOUTS, checkouts
    lost = [job for job in jobs if (tree_of(job), job["name"]) == LOST]
    assert [job["data"].get("error_code") for job in lost] == ["node_timeout"], lost
    broken = [job for job in jobs if job["data"].get("error_code") == "Infrastructure"]
    assert len(broken) == RETRIES, broken
    with_results = len(jobs) - len(lost) - len(broken)
    assert len(nodes) == len(checkouts) + len(builds) + len(jobs) + with_results * (1 + TESTS), len(nodes)
    wrong = [node for node in nodes if node["state"] != "done" or node["processed_by_kcidb_bridge"] is not True]
    assert not wrong, wrong
    ids = {node["id"]: node for node in nodes}
    for node in nodes:
        parent = ids[node["parent"]] if node["parent"] else None
        assert (parent is None) == (node["name"] == "checkout") and node["treeid"], node
        assert not parent or node["treeid"] == parent["treeid"], node
    return nodes


def check_events(world, daemons):
    for listener in (daemon for daemon in daemons if isinstance(daemon, Listener)):
        got = [event["_sequence_id"] for event in listener.events]
        assert got == sorted(set(got)), (listener.name, "out of order or twice", got)
        if listener.durable:
            expected = due(listener)
            assert got == expected, (listener.name, "lost", set(expected) - set(got), "more", set(got) - set(expected))
            # Only what was on its way when the server or the subscription ended may come again.
            assert listener.repeated <= 1 + listener.subscribed, listener.report()
        assert listener.longest_silence < 30, listener.report()
    events = world.api["admin"].get("events", {"channel": "node", "state": "done", "limit": 0})
    ended = Counter(event["data"]["id"] for event in events)
    assert set(ended.values()) == {1}, ended
    return ended


def check_telemetry(world):
    api = world.api[PIPELINE]
    found = Counter(record["kind"] for record in api.find("telemetry"))
    assert found == world.emitted, (found, world.emitted)
    stats = api.get("telemetry/stats", {"group_by": "kind"})
    assert {row["kind"]: row["total"] for row in stats} == dict(found), stats


def check_all(world, daemons):
    nodes = check_nodes(world)
    ended = check_events(world, daemons)
    check_telemetry(world)
    named = {daemon.name: daemon for daemon in daemons}
    assert set(ended) == {node["id"] for node in nodes if node["owner"] == PIPELINE}
    assert set(named["KcidbNodes"].sent) == {node["id"] for node in nodes}
    assert set(named["KcidbNodes"].sent.values()) == {1}
    assert named["Patchset"].patches == ["patch0", "patch1", "patch2"], named["Patchset"].patches
    assert named["Trigger"].made == 2 and named["Trigger"].found, named["Trigger"].report()
    assert named["JobRetry"].asked == RETRIES, named["JobRetry"].report()
    assert not named["Bystander"].events and named["Bystander"].beeps, named["Bystander"].report()
    assert named["Monitor"].events
    check_pollers(named["Example"], named["KciDev"], nodes)


def check_pollers(example, kci_dev, nodes):
    """Whoever only asks again and again has seen everything, too."""
    for poller in (example, kci_dev):
        poller.turn()  # its last one may have been too early
    jobs = {job["id"] for job in made_jobs(nodes)[0]}
    assert Counter(example.jobs) == Counter(jobs), (jobs ^ set(example.jobs), example.report())
    watched = {node["id"] for node in nodes if node["treeid"] == "a" * 24}
    assert kci_dev.seen == dict.fromkeys(watched, "done"), kci_dev.report()
    assert kci_dev.troubles < 10, kci_dev.report()
