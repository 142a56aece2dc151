"""From the reports of `kernelci-live load` to RESULTS.md and its plots."""
from chart import chart
from rows import ROWS, SECTIONS, figure, percentile

ROW = {row.name: row for row in ROWS}


def parameter(name):
    return lambda report: report["parameters"].get(name)


def process(name, field):
    def find(report):
        return next((used[field] for used in report["processes"] if used["name"] == name), None)
    return find


def on(report):
    return {"embedded": "embedded", "production": "MongoDB, Redis", "plain": "plain server", "nats": "NATS",
            "socketio": "Socket.IO", "redis": "Redis"}[ROW[report["row"]].on]


def operation(report):
    name = report["parameters"].get("operation") or report["scenario"]
    return f"{report['scenario'].replace('-', ' ')} {name}" if report["scenario"] in ("driver", "bare-sqlite") else name


SERVER_CPU = ("server CPU %", process("server", "cpu_percent"))
GENERATOR_CPU = ("generator CPU %", process("generator", "cpu_percent"))

COLUMNS = {
    "idle": [
        ("on", on), ("sessions", parameter("sessions")), ("kB a session", figure("idle_rss_kb_per_session")),
        ("after a burst", figure("after_burst_rss_kb_per_session")),
        ("rested", figure("rested_rss_kb_per_session")), ("CPU %", figure("idle_cpu_percent")),
        ("CPU µs a session and s", figure("idle_cpu_us_per_session_second")),
    ],
    "fan-out": [
        ("on", on), ("subscribers", parameter("subscribers")), ("bytes", figure("message_bytes")),
        ("deliveries/s", figure("deliveries_per_second")),
        ("a server CPU s", figure("deliveries_per_server_cpu_second")),
        ("all have it p50 ms", percentile("last_delivery", "p50")), ("p99 ms", percentile("last_delivery", "p99")),
        GENERATOR_CPU,
    ],
    "rates": [
        ("on", on), ("events/s", parameter("rate")), ("p50 ms", lambda report: latency(report, "p50")),
        ("p99 ms", lambda report: latency(report, "p99")), ("max ms", lambda report: latency(report, "max")), SERVER_CPU,
        ("mongod CPU %", process("mongod", "cpu_percent")), ("redis CPU %", process("redis", "cpu_percent")),
        GENERATOR_CPU,
    ],
    "coalesced": [
        ("on", on), ("bytes", figure("message_bytes")), ("deliveries/s", figure("deliveries_per_second")),
        ("a server CPU s", figure("deliveries_per_server_cpu_second")), ("p99 ms", percentile("delivery", "p99")),
        SERVER_CPU, GENERATOR_CPU,
    ],
    "filters": [
        ("filters", parameter("filters")), ("events/s", figure("events_per_second")),
        ("deliveries/s", figure("deliveries_per_second")), ("all have it p50 ms", percentile("last_delivery", "p50")),
        ("p99 ms", percentile("last_delivery", "p99")), SERVER_CPU,
    ],
    "sessions": [
        ("what", operation), ("on", on), ("clients", lambda report: report["parameters"].get("clients")
                                          or report["parameters"].get("workers")),
        ("events", parameter("events")), ("connections/s", figure("connections_per_second")),
        ("p50 ms", lambda report: latency(report, "p50")), ("p99 ms", lambda report: latency(report, "p99")),
        ("events/s of a client", figure("events_per_second_of_a_client")), SERVER_CPU, GENERATOR_CPU,
    ],
    "requests": [
        ("what", operation), ("on", on), ("nodes", parameter("nodes")), ("/s", figure("requests_per_second")),
        ("nodes/s", figure("nodes_per_second")), ("p50 ms", lambda report: latency(report, "p50")),
        ("p99 ms", lambda report: latency(report, "p99")), SERVER_CPU,
        ("mongod CPU %", process("mongod", "cpu_percent")), ("redis CPU %", process("redis", "cpu_percent")),
        GENERATOR_CPU,
    ],
    "mixed": [
        ("on", on), ("delivery p50 ms", percentile("delivery", "p50")), ("p99 ms", percentile("delivery", "p99")),
        ("create p50 ms", percentile("create", "p50")), ("p99 ms", percentile("create", "p99")),
        ("find p50 ms", percentile("find", "p50")), ("p99 ms", percentile("find", "p99")), SERVER_CPU,
        ("mongod CPU %", process("mongod", "cpu_percent")), ("redis CPU %", process("redis", "cpu_percent")),
    ],
}


# What the curves say, where they are not straight lines.
NOTES = {
    "idle": "A process may open 20,000 files on the machine that this was measured on: 40,000 sessions did not fit. The"
            " first sessions bring what all of them share, so each costs less as they become more.",
    "fan-out": "The plain server writes to all its sockets in one loop and has nothing else to do. The difference at one"
               " subscriber is that ours makes the event durable before it shows it.",
    "rates": "`steady-driver` is one insert on the disks of a majority by MongoDB's bare driver, at the same rate: on"
             " MongoDB an event waits for one before it is shown.",
    "coalesced": "NATS is measured twice: with the same payload as everybody, which makes its messages half as long as"
                 " our CloudEvents, and with the same bytes on the wire, which is what the aim is judged by.",
    "filters": "Subscriptions stand in an index under a string that their filter demands: an event costs what its"
               " deliveries cost, whatever the number of filters.",
    "sessions": "The newest 8,192 events come from memory and older ones from the store, so the curve has a step between"
                " 10,000 and 100,000 and is a straight line before and behind it.",
    "requests": "A page and a node take as long among a million nodes as among ten thousand; among a thousand fewer nodes"
                " match than a page holds. `node.count` reads the part of an index that matches: with a hundred times as"
                " many matches it is four times as slow. The plain rows are what the bare driver and bare SQLite do with"
                " the same documents, the same indexes and nothing else.",
}


def latency(report, which):
    """Of the one kind of times that such a run has, or the first."""
    for times in report["latencies"].values():
        return times.get(which)


def shown(value):
    if value is None:
        return ""
    if isinstance(value, (int, float)):
        return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"
    return str(value)


# CPU of one core that others may take before an aim is judged by the row.
BUSY = 25


def verdict(row, report, reports):
    if (process("others", "cpu_percent")(report) or 0) > BUSY:
        return f"{row.aim}: not judged, the machine was busy"
    met = row.met(report, {name: other for name, other in reports.items() if other["valid"]})
    if met is None:
        return f"{row.aim}: peer not measured"
    return f"{row.aim}: **{'met' if met else 'missed'}**"


def table(section, reports):
    columns, lines = COLUMNS[section], []
    rows = [row for row in ROWS if row.section == section and row.name in reports]
    for row in rows:
        report = reports[row.name]
        command = f"`{report['command']}`"
        if report["valid"]:
            cells = [shown(value(report)) for _, value in columns]
            aim = verdict(row, report, reports) if row.met else ""
        else:
            cells = [shown(value(report)) if value in (on, operation) else "" for _, value in columns]
            aim = f"**not valid**: {report['faults']['first']}"
        others = shown(round(process("others", "cpu_percent")(report) or 0))
        lines.append([row.name, *cells, others, aim, command])
    heads = ["row", *(head for head, _ in columns), "others CPU %", "aim", "command"]
    # A column without anything in it says nothing.
    kept = [at for at in range(len(heads)) if at == 0 or any(line[at] for line in lines)]
    picked = lambda line: "| " + " | ".join(line[at].replace("|", "\\|") for at in kept) + " |"
    return "\n".join([picked(heads), "|" + "---|" * len(kept), *map(picked, lines)])


def curves(reports):
    """File → title, axes, and lines of the rows that were measured."""
    def line(names, across, up):
        found = [(across(reports[name]), up(reports[name])) for name in names
                 if name in reports and reports[name]["valid"]]
        return [(x, y) for x, y in found if x and y]

    def starting(start, on):
        return [row.name for row in ROWS if row.name.startswith(start) and row.on == on]

    last, subscribers, nodes = percentile("last_delivery", "p50"), parameter("subscribers"), parameter("nodes")
    served = ("embedded", "plain", "nats", "socketio", "redis")
    yield ("idle.svg", "Memory of the server for idle sessions", "sessions", "MB", {
        "embedded": line(starting("idle-", "embedded"), parameter("sessions"), lambda report:
                         figure("idle_rss_kb_per_session")(report) * report["parameters"]["sessions"] / 1000)})
    yield ("fan-out.svg", "One event until everybody has it (p50)", "subscribers", "ms", {
        name: line(starting("fan-out-", name), subscribers, last) for name in served})
    yield ("filters.svg", "CPU time of the server per event: 10,000 subscribers", "filters", "ms", {
        "embedded": line(starting("filters-", "embedded"), parameter("filters"), lambda report:
                         process("server", "cpu_seconds")(report) * 1000 / figure("events")(report))})
    yield ("resume.svg", "One client catches up", "missed events", "ms", {
        "embedded": line([f"resume-{tail}" for tail in ("1000", "embedded", "100000", "1000000")],
                         parameter("events"), percentile("caught_up", "p50"))})
    yield ("nodes.svg", "Requests as the store grows, 64 sessions, embedded", "nodes", "requests/s", {
        what: line([f"{what}-{tail}" for tail in ("1000", "10000", "embedded", "1000000")], nodes,
                   figure("requests_per_second"))
        for what in ("get", "find", "count", "create")})


def write_results(folder, reports, revision, quick):
    measured = list(reports.values())
    out = ["# What `kernelci-live load` measures", "",
           "Written by `scripts/load`, which `README.md` explains; a row alone: `scripts/load ROW`. Server, back ends and"
           " generator share the machine. Ratios within one run decide; absolute figures are of this machine. A run in"
           " which anything was lost, doubled or out of order has no figures. *Others* is what the rest of the machine did"
           " meanwhile: if it is much, the row has to be measured again.", ""]
    if measured:
        machines = sorted({report["machine"] for report in measured})
        times = sorted(report["time"] for report in measured)
        out += [f"Measured on {'; '.join(machines)}, {times[0]} to {times[-1]}, revision {revision}"
                + (", a quick run: a first look only." if quick else "."), ""]
    plots = {}
    for file, title, across, up, lines in curves(reports):
        lines = {name: line for name, line in lines.items() if len(line) > 1}
        if lines:
            (folder / file).write_text(chart(title, across, up, lines))
            plots[file] = title
        else:
            (folder / file).unlink(missing_ok=True)
    places = {"idle": "idle.svg", "fan-out": "fan-out.svg", "filters": "filters.svg", "sessions": "resume.svg",
              "requests": "nodes.svg"}
    for section, title in SECTIONS.items():
        if not any(row.section == section and row.name in reports for row in ROWS):
            continue
        out += [f"## {title}", "", table(section, reports), ""]
        if section in NOTES:
            out += [NOTES[section], ""]
        if places.get(section) in plots:
            out += [f"![{plots[places[section]]}]({places[section]})", ""]
    missed = [row.name for row in ROWS if row.name not in reports]
    if missed and not quick:
        out += [f"Not measured: {', '.join(missed)}.", ""]
    (folder / "RESULTS.md").write_text("\n".join(out))
