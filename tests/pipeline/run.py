#!/usr/bin/env python3
"""A whole pipeline run against the server, with all daemons of KernelCI's pipeline at once and their Python client.

  target/venv/bin/python tests/pipeline/run.py

Two trees are checked out, a patchset is asked for, everything is built, run in a simulated lab, retried, timed out,
closed, sent and counted. Midway a subscription is ended under its daemon, and the server is restarted: the daemons
have only their client's retries. Runs on the embedded store and, with MONGO_URL and REDIS_URL, on those.
KERNELCI_LIVE is the binary (default: target/debug/kernelci-live).
"""
import sys, tempfile, time, traceback

from checks import check_all, over
from client import Counted
from closers import Closing, Holdoff, Timeout
from listener import Listener
from runtimes import Builder, Lab, LavaCallback
from scheduling import JobRetry, Scheduler
from server import Server
from services import own_part, remove
from sources import Patchset, Requests, Tarball, Trigger
from watchers import Bystander, Example, KciDev, KcidbEvents, KcidbNodes, Monitor, Telemetry
from world import World

MOST_SECONDS = 900  # a run takes a minute where nothing else does
DOWN_SECONDS = 0.5


def daemons_of(world):
    # Who listens comes first: subscribed before anything happens.
    return [
        Tarball(world), Scheduler(world, "node"), Scheduler(world, "retry"), JobRetry(world), KcidbEvents(world),
        Monitor(world), Bystander(world), KcidbNodes(world), Patchset(world), Requests(world), Builder(world),
        Builder(world, "Builder-2"), Lab(world), LavaCallback(world), Timeout(world), Holdoff(world), Closing(world),
        Telemetry(world), Example(world), KciDev(world), Trigger(world)]


def wait_for(world, what, condition, end):
    while not condition():
        if world.failures:
            raise AssertionError("a daemon has failed")
        if time.monotonic() > end:
            raise AssertionError(f"not in time: {what}")
        time.sleep(0.3)


def play(server, world, daemons, end):
    """The run itself, with its two troubles."""
    listeners = [daemon for daemon in daemons if isinstance(daemon, Listener)]
    callback = next(daemon for daemon in daemons if isinstance(daemon, LavaCallback))
    for daemon in daemons:
        daemon.start()
    wait_for(world, "first results", lambda: callback.written > 0, end)
    kcidb = next(daemon for daemon in listeners if isinstance(daemon, KcidbEvents))
    ended = kcidb.subscription
    kcidb.api.post(f"unsubscribe/{ended}")
    # Its daemon may have opened another one already.
    open_now = {one["id"] for one in world.api["admin"].get("stats/subscriptions")}
    assert ended not in open_now, open_now
    assert {listener.subscription for listener in listeners if listener is not kcidb} <= open_now, open_now

    seen, retried = {listener: len(listener.events) for listener in listeners}, Counted.retried
    assert server.stop(), "the server had to be killed"
    time.sleep(DOWN_SECONDS)
    server.start()
    durable = [listener for listener in listeners if listener.durable]
    wait_for(world, "the end of the run", lambda: over(world, durable), end)
    assert kcidb.subscribed == 2, kcidb.report()
    assert Counted.retried > retried, "no daemon noticed the restart"
    for listener in (listener for listener in durable if listener.channel == "node"):
        assert 0 < len(listener.events) - seen[listener], (listener.name, "nothing came after the restart")


def run(name, services):
    begun, Counted.retried = time.monotonic(), 0
    with tempfile.TemporaryDirectory(prefix="kernelci-live-pipeline-") as folder:
        server, world, daemons, failure = Server(folder, services), None, [], None
        try:
            server.start()
            world = World(server.url)
            daemons = daemons_of(world)
            play(server, world, daemons, begun + MOST_SECONDS)
            world.stopping.set()
            for daemon in daemons:
                daemon.join(20)
                assert not daemon.is_alive(), f"{daemon.name} does not end"
            check_all(world, daemons)
        except Exception:
            failure = traceback.format_exc()
        finally:
            if world:
                world.stopping.set()
            server.stop()
            if services:
                remove(services)
        print(f"pipeline on {name}: {'FAILED' if failure else 'passed'} in {time.monotonic() - begun:.1f} s")
        for daemon in daemons:
            print(f"  {daemon.name:16} {daemon.report()}")
        errors = server.errors()
        print(f"  {Counted.retried} requests were made again")
        for text in [failure, *(world.failures if world else []), *errors[-20:]]:
            if text:
                print(text)
        return not (failure or errors or (world and world.failures))


def main():
    runs = [("the embedded store", {})]
    if services := own_part():
        runs.append(("MongoDB and Redis", services))
    else:
        print("pipeline: MONGO_URL and REDIS_URL are not set, only the embedded store is used")
    if not all([run(name, services) for name, services in runs]):
        sys.exit("pipeline: see above")


if __name__ == "__main__":
    main()
