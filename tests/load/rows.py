"""What `scripts/load` measures: a row each, with what is aimed at."""
from dataclasses import dataclass, field
from typing import Callable, Optional


@dataclass
class Row:
    name: str  # of its file under target/load
    section: str
    on: str  # embedded, production, plain, nats, socketio, redis
    arguments: str  # of `kernelci-live load`
    quick: bool = True  # part of `--quick`
    short: str = ""  # arguments in place of these for `--quick`
    aim: str = ""
    met: Optional[Callable] = None  # whether the aim is met, of (this row's report, all reports by name)
    seconds: int = 60  # at most
    same_bytes_as: str = ""  # the row whose messages' size this one takes
    envelope: int = 0  # bytes that the peer puts around what is published
    settings: dict = field(default_factory=dict)  # environment of the server


def figure(name):
    return lambda report: report["figures"].get(name)


def percentile(times, which):
    return lambda report: report["latencies"].get(times, {}).get(which)


def at_most(value, limit):
    return lambda report, _: value(report) is not None and value(report) <= limit


def at_least(value, limit):
    return lambda report, _: value(report) is not None and value(report) >= limit


def ratio(value, peer, limit):
    """At least `limit` times the peer's value in the same run; unknown without the peer."""

    def met(report, others):
        ours, theirs = value(report), others.get(peer) and value(others[peer])
        return None if not ours or not theirs else ours / theirs >= limit

    return met


def no_slower(times, which, factor, *peers):
    """At most `factor` times what the peers take in the same run, together; each is the name of a row and of its times."""

    def met(report, others):
        ours = percentile(times, which)(report)
        theirs = [others.get(peer) and percentile(their, which)(others[peer]) for peer, their in peers]
        return None if not ours or not all(theirs) else ours / sum(theirs) <= factor

    return met


def either(*conditions):
    def met(report, others):
        results = [condition(report, others) for condition in conditions]
        return True if True in results else None if None in results else False

    return met


def both(*conditions):
    def met(report, others):
        results = [condition(report, others) for condition in conditions]
        return False if False in results else None if None in results else True

    return met


DELIVERIES = figure("deliveries_per_second")
PER_CPU = figure("deliveries_per_server_cpu_second")
REQUESTS = figure("requests_per_second")
STORES = ("embedded", "production")
PEERS = ("plain", "nats", "socketio")

ROWS = [
    # Idle sessions: one subscription each; then a burst of 100 events, and what is left of it a minute later.
    Row("idle-1k", "idle", "embedded", "idle --sessions 1000 --seconds 10 --burst 0", quick=False),
    Row("idle-10k", "idle", "embedded", "idle --sessions 10000 --seconds 30 --burst 100 --rest 60", seconds=180,
        short="idle --sessions 5000 --seconds 10 --burst 100 --rest 15",
        aim="≤ 6 kB a session, also a minute after a burst; ≤ 2 % of a core",
        met=both(at_most(figure("idle_rss_kb_per_session"), 6), at_most(figure("idle_cpu_percent"), 2),
                 at_most(figure("rested_rss_kb_per_session"), 6))),
    Row("idle-18k", "idle", "embedded", "idle --sessions 18000 --seconds 10 --burst 0", quick=False, seconds=120),
    *(Row(f"idle-{peer}", "idle", peer, "idle --sessions 5000 --seconds 5 --burst 0", quick=False)
      for peer in PEERS),
    # One event after the other.
    *(Row(f"fan-out-{count}", "fan-out", "embedded", f"fan-out --subscribers {count} --events {events}",
          quick=count == 5000)
      for count, events in ((1, 1000), (100, 500), (1000, 200), (10000, 50))),
    Row("fan-out-5000", "fan-out", "embedded", "fan-out --subscribers 5000 --events 100",
        aim="≥ 0.7 of the plain server with the same bytes", met=ratio(DELIVERIES, "fan-out-5000-plain", 0.7)),
    Row("fan-out-5000-production", "fan-out", "production", "fan-out --subscribers 5000 --events 100", quick=False),
    *(Row(f"fan-out-{count}-plain", "fan-out", "plain", f"fan-out --subscribers {count} --events {events}",
          quick=count == 5000, same_bytes_as=f"fan-out-{count}")
      for count, events in ((1, 1000), (100, 500), (1000, 200), (5000, 100), (10000, 50))),
    *(Row(f"fan-out-5000-{peer}", "fan-out", peer, "fan-out --subscribers 5000 --events 100", quick=False)
      for peer in ("nats", "socketio", "redis")),
    # The steady rate of a busy day, and ten times its peak.
    *(Row(f"steady-{on}", "rates", on, "fan-out --subscribers 1050 --rate 10 --events 100",
          short="fan-out --subscribers 1050 --rate 10 --events 40",
          aim="publish to socket p99 ≤ 10 ms, or ≤ 1.25 of what cannot be less: " + what,
          met=either(at_most(percentile("delivery", "p99"), 10), no_slower("delivery", "p99", 1.25, *peers)))
      for on, what, peers in (
          ("embedded", "the plain server's", [("steady-plain", "delivery")]),
          ("production", "the plain server's and the bare driver's", [("steady-plain", "delivery"), ("steady-driver", "answer")]))),
    Row("steady-driver", "rates", "production", "driver create --sessions 1 --rate 10 --seconds 10"),
    Row("steady-plain", "rates", "plain", "fan-out --subscribers 1050 --rate 10 --events 100",
        short="fan-out --subscribers 1050 --rate 10 --events 40", same_bytes_as="steady-embedded"),
    *(Row(f"burst-{on}", "rates", on, "burst --subscribers 1050 --rate 500 --seconds 5",
          aim="nothing lost, p99 ≤ 250 ms", met=at_most(percentile("delivery", "p99"), 250)) for on in STORES),
    *(Row(f"burst-{peer}", "rates", peer, "burst --subscribers 1050 --rate 500 --seconds 5", quick=False)
      for peer in (*PEERS, "redis")),
    # As many as go.
    Row("coalesced-embedded", "coalesced", "embedded", "coalesced --subscribers 1000 --seconds 5",
        aim="≥ 1,000,000 a CPU second; ≥ 3 × Socket.IO, ≥ 1.5 × NATS with the same bytes",
        met=both(at_least(PER_CPU, 1e6), ratio(PER_CPU, "coalesced-socketio", 3),
                 ratio(PER_CPU, "coalesced-nats-same-bytes", 1.5))),
    Row("coalesced-nats-same-bytes", "coalesced", "nats", "coalesced --subscribers 1000 --seconds 5",
        same_bytes_as="coalesced-embedded", envelope=18),
    Row("coalesced-production", "coalesced", "production", "coalesced --subscribers 1000 --seconds 5", quick=False),
    *(Row(f"coalesced-{peer}", "coalesced", peer, "coalesced --subscribers 1000 --seconds 5",
          same_bytes_as="coalesced-embedded" if peer == "plain" else "") for peer in (*PEERS, "redis")),
    # Each subscriber has one of so many filters, and gets that part of the events.
    *(Row(f"filters-{count}", "filters", "embedded",
          f"fan-out --subscribers 10000 --filters {count} --events {events}", quick=False)
      for count, events in ((10, 200), (100, 500), (1000, 1000), (10000, 1000))),
    # Sessions come, and come back.
    *(Row(f"connect-{on}", "sessions", on, "connect --seconds 5", aim="≥ 5,000/s",
          met=at_least(figure("connections_per_second"), 5000), quick=on == "embedded") for on in STORES),
    *(Row(f"resume-{on}", "sessions", on, "resume --events 10000 --clients 1", aim="≤ 150 ms",
          met=at_most(percentile("caught_up", "p50"), 150)) for on in STORES),
    *(Row(f"resume-{on}-100", "sessions", on, "resume --events 10000 --clients 100 --times 1", quick=False)
      for on in STORES),
    *(Row(f"resume-{events}", "sessions", "embedded", f"resume --events {events} --clients 1 --times 1",
          quick=False, seconds=120) for events in (1000, 100_000, 1_000_000)),
    # Requests on nodes; MongoDB's bare driver does the same in between.
    *(Row(f"{operation}-{on}", "requests", on, f"requests {operation} --nodes {nodes} --seconds {seconds}",
          short=f"requests {operation} --nodes 10000 --seconds 3",
          aim=aim.get(on, ""), met=met.get(on), quick=operation in ("get", "create"), seconds=120)
      for operation, aim, met in (
          ("create", {"embedded": "≥ 20,000/s, durable, or ≥ 0.7 of bare SQLite", "production": "≥ 0.7 of the driver"},
           {"embedded": either(at_least(REQUESTS, 20_000), ratio(REQUESTS, "bare-sqlite", 0.7)), "production": ratio(REQUESTS, "driver-create", 0.7)}),
          ("get", {"production": "≥ 0.8 of the driver"}, {"production": ratio(REQUESTS, "driver-get", 0.8)}),
          ("find", {}, {}), ("count", {}, {}))
      for on, nodes, seconds in (("embedded", 100_000, 4), ("production", 20_000, 4))),
    *(Row(f"driver-{operation}", "requests", "production", f"driver {operation} --seconds 4",
          short=f"driver {operation} --seconds 3") for operation in ("create", "get")),
    Row("bare-sqlite", "requests", "embedded", "bare-sqlite --seconds 4", short="bare-sqlite --seconds 3"),
    *(Row(f"{operation}-{nodes}", "requests", "embedded", f"requests {operation} --nodes {nodes} --seconds 3",
          quick=False, seconds=60 + nodes // 4000)
      for operation in ("get", "find", "count") for nodes in (1000, 10_000, 1_000_000)),
    *(Row(f"{operation}-production-1000000", "requests", "production",
          f"requests {operation} --nodes 1000000 --seconds 3", quick=False, seconds=310)
      for operation in ("get", "find", "create")),
    Row("create-1000000", "requests", "embedded", "requests create --nodes 1000000 --seconds 3", quick=False, seconds=310),
    *(Row(f"hierarchy-{on}", "requests", on, "hierarchy --times 5", quick=False) for on in STORES),
    # Everything at once.
    *(Row(f"mixed-{on}", "mixed", on, "mixed --seconds 10", short="mixed --seconds 5", seconds=120) for on in STORES),
]

SECTIONS = {
    "idle": "Idle sessions",
    "fan-out": "One event after the other to many subscribers",
    "rates": "Steady rates: 1,050 subscribers",
    "coalesced": "As many events as go: 1,000 subscribers",
    "filters": "Filters: 10,000 subscribers, each with one of so many",
    "sessions": "Coming and coming back",
    "requests": "Requests, 64 sessions",
    "mixed": "Everything at once: 500 dashboards, 100 creates/s, 50 searches/s",
}
