#!/usr/bin/env python3
"""Turns the runs of bench-results/peers.sh into tables: least, median and most over the rounds, per scenario and broker.

    bench-results/peers.py DIRECTORY > DIRECTORY/summary.md

DIRECTORY holds machine.txt, runs.jsonl (one line a run) and the reports of `millstream load` that it names. The figures
follow from the reports' counts as in loadgen/src/report/derived.rs.
"""

import json
import pathlib
import statistics
import sys

# ------------------------------------------------------------------------------------------------------------- figures
# Each takes a report and gives a number, or None where there is none: what cannot be known is not 0.


def over(part, whole):
    return part / whole if whole > 0 else None


def measured_seconds(report):
    begin, end = report["measured"]
    return max(0.0, end - begin)


def total(report, part, key):
    return sum(each[key] for each in report[part])


def cpu_us(report, begin="measured_from", end="measured_to"):
    server = report["server"]
    return max(0, server[end]["cpu_us"] - server[begin]["cpu_us"]) if server else None


def cpu_for(count):
    """The broker's CPU time in the measured time, in microseconds for each of what `count` counts."""

    def figure(report):
        used = cpu_us(report)
        # What used nothing that the kernel counts is not known.
        return over(used, count(report)) if used else None

    return figure


def sent(report):
    return total(report, "streams", "sent_measured")


def delivered(report):
    return total(report, "audiences", "delivered_measured")


def first_round(report):
    return min(report["connects"]["accepted"], report["connects"]["clients"])


def connects_per_cpu_second(report):
    used = cpu_us(report, "before", "connected")
    return over(first_round(report) * 1e6, used) if used else None


def connects_per_second(report):
    return over(first_round(report), report["connects"]["seconds"])


def added_per_client(*keys):
    def figure(report):
        server = report["server"]
        if not server:
            return None
        added = sum(server["connected"][key] - server["before"][key] for key in keys)
        return over(added, first_round(report))

    return figure


def per_second(count):
    return lambda report: over(count(report), measured_seconds(report))


def broker_cores(report):
    used = cpu_us(report)
    return over(used / 1e6, measured_seconds(report)) if used is not None else None


def latency(part, quantile):
    """A quantile in milliseconds; of several streams or subscriptions the largest."""

    def figure(report):
        histograms = [each["latency"] for each in report[part]]
        return max((each[quantile] for each in histograms if each["count"]), default=None)

    return figure


def connect_latency(quantile):
    def figure(report):
        histogram = report["connects"]["latency"]
        return histogram[quantile] if histogram["count"] else None

    return figure


def busiest_second(report):
    """Messages to late subscribers come when they come, within the measured time or beside it."""
    busy = [second["delivered"] for second in report["seconds"] if second["delivered"]]
    return max(busy, default=None)


def cpu_for_all(report):
    """The broker's CPU time behind the first connects, in microseconds for each message in or out of the whole run."""
    server = report["server"]
    if not server:
        return None
    samples = [second["server"]["cpu_us"] for second in report["seconds"] if second["server"]]
    used = max([server["measured_to"]["cpu_us"], *samples]) - server["connected"]["cpu_us"]
    return over(used, total(report, "streams", "sent") + total(report, "audiences", "delivered")) if used > 0 else None


CPU_DELIVERY = ("CPU per delivery", cpu_for(delivered), "µs", 2)
CPU_MESSAGE = ("CPU per message, in or out", cpu_for(lambda report: sent(report) + delivered(report)), "µs", 2)
CPU_PUBLISH = ("CPU per publish with its delivery", cpu_for(sent), "µs", 2)
DELIVERY = [
    ("delivered, p50", latency("audiences", "p50_ms"), "ms", 2),
    ("delivered, p99", latency("audiences", "p99_ms"), "ms", 2),
]
ACKNOWLEDGED = [
    ("acknowledged, p50", latency("streams", "p50_ms"), "ms", 2),
    ("acknowledged, p99", latency("streams", "p99_ms"), "ms", 2),
]
DELIVERED_RATE = ("delivered", per_second(delivered), "/s", 0)
CONNECTS_PER_CPU = ("connects per CPU second", connects_per_cpu_second, "", 0)
CORES = ("broker's cores busy", broker_cores, "", 2)

# scenario: (title, the figures of its table)
TABLES = {
    "idle": (
        "Idle clients with one subscription each",
        [
            ("own memory per client", added_per_client("anonymous_bytes"), "B", 0),
            ("kernel memory per client, both ends", added_per_client("socket_bytes", "slab_bytes"), "B", 0),
            CONNECTS_PER_CPU,
            CORES,
        ],
    ),
    "connect-storm": (
        "Everybody connects at once",
        [
            CONNECTS_PER_CPU,
            ("connects", connects_per_second, "/s", 0),
            ("accepted, p50", connect_latency("p50_ms"), "ms", 0),
            ("accepted, p99", connect_latency("p99_ms"), "ms", 0),
        ],
    ),
    "fan-out": ("1 → 500, QoS 0, one message at a time", [CPU_DELIVERY, *DELIVERY, DELIVERED_RATE, CORES]),
    "fan-out-bursts": ("1 → 500, QoS 0, bursts of 100", [CPU_DELIVERY, *DELIVERY, DELIVERED_RATE, CORES]),
    "pairs": ("300 pairs, QoS 1, 5,000 messages/s", [CPU_MESSAGE, *ACKNOWLEDGED, *DELIVERY, CORES]),
    "pairs-highest": (
        "300 pairs, QoS 1, as fast as windows of 50 let",
        [("highest rate, delivered", per_second(delivered), "/s", 0), CPU_MESSAGE, *ACKNOWLEDGED, *DELIVERY, CORES],
    ),
    "fan-in": ("500 → 1, QoS 0, 10,000 messages/s", [CPU_PUBLISH, *DELIVERY, DELIVERED_RATE, CORES]),
    "wildcard": ("100,000 filters with + and #, one matches", [CPU_PUBLISH, *DELIVERY, DELIVERED_RATE, CORES]),
    "shared": ("A share of 100 workers, QoS 1, MQTT 5.0", [CPU_MESSAGE, *ACKNOWLEDGED, *DELIVERY, CORES]),
    "retained": (
        "100,000 retained messages to 5 late subscribers",
        [
            ("CPU per message, stored or delivered", cpu_for_all, "µs", 2),
            ("delivered in the busiest second", busiest_second, "", 0),
        ],
    ),
}

# Rows of the overview: (title, scenario, name of the figure)
OVERVIEW = [
    ("own memory per idle client", "idle", "own memory per client"),
    ("connects per CPU second, storm", "connect-storm", "connects per CPU second"),
    ("CPU per delivery, 1 → 500, one at a time", "fan-out", "CPU per delivery"),
    ("CPU per delivery, 1 → 500, bursts of 100", "fan-out-bursts", "CPU per delivery"),
    ("delivered, p99, 1 → 500, one at a time", "fan-out", "delivered, p99"),
    ("CPU per message, pairs of QoS 1 at 5,000/s", "pairs", "CPU per message, in or out"),
    ("delivered, p99, the same", "pairs", "delivered, p99"),
    ("highest rate of pairs, windows of 50", "pairs-highest", "highest rate, delivered"),
    ("CPU per message, the same", "pairs-highest", "CPU per message, in or out"),
    ("CPU per publish, 500 → 1", "fan-in", "CPU per publish with its delivery"),
    ("CPU per publish, 100,000 wildcard filters", "wildcard", "CPU per publish with its delivery"),
    ("CPU per message, shared", "shared", "CPU per message, in or out"),
    ("CPU per retained message, stored or delivered", "retained", "CPU per message, stored or delivered"),
]

# -------------------------------------------------------------------------------------------------------------- tables


def number(value, digits):
    return f"{value:,.{digits}f}"


def cell(values, unit, digits):
    """Median, with the least and the most where they differ."""
    if not values:
        return "–"
    space = "" if unit.startswith("/") else " "
    text = f"{number(statistics.median(values), digits)}{space}{unit}".rstrip()
    least, most = number(min(values), digits), number(max(values), digits)
    return f"{text} ({least}–{most})" if least != most else text


def figures(runs, figure):
    found = (figure(run["report"]) for run in runs if run["report"])
    return [value for value in found if value is not None]


def table(head, rows):
    yield "| " + " | ".join(head) + " |"
    yield "|---" * len(head) + "|"
    for row in rows:
        yield "| " + " | ".join(row) + " |"
    yield ""


def count_range(values):
    least, most = min(values), max(values)
    return f"{least:,}" if least == most else f"{least:,}–{most:,}"


def refused(report):
    by_stream = sum(sum(stream["refused"].values()) for stream in report["streams"])
    return by_stream + report["connects"]["refused"]


LEDGER = [
    ("sent", lambda report: total(report, "streams", "sent")),
    ("delivered", lambda report: total(report, "audiences", "delivered")),
    ("missing", lambda report: total(report, "audiences", "missing")),
    ("duplicate", lambda report: total(report, "audiences", "duplicates")),
    ("out of order", lambda report: total(report, "audiences", "out_of_order")),
    ("refused", refused),
    ("unanswered", lambda report: total(report, "streams", "unanswered")),
    ("connections closed", lambda report: sum(report["connects"]["closed"].values())),
]


def ledger(runs):
    """The fates of all messages in one line; least to most over the rounds, what is 0 left out."""
    reports = [run["report"] for run in runs if run["report"]]
    if not reports:
        return "no report"
    parts = []
    for name, count in LEDGER:
        values = [count(report) for report in reports]
        if any(values):
            parts.append(f"{count_range(values)} {name}")
    return ", ".join(parts) or "no messages"


def marks(runs):
    """Why a row is to be read with care."""
    found = []
    if any(run["failed"] for run in runs):
        found.append("**failed**")
    if any(run["report"] and run["report"]["tool_was_the_limit"] for run in runs):
        found.append("tool at its limit")
    return ", ".join(found)


def scenario_section(scenario, runs_of):
    title, wanted = TABLES[scenario]
    yield f"## {title}"
    yield ""
    options = {broker: runs[0]["options"] for broker, runs in runs_of.items()}
    usual = max(options.values(), key=list(options.values()).count)
    yield f"`millstream load {usual}`"
    yield ""
    rows = []
    for broker, runs in runs_of.items():
        row = [f"{broker} {marks(runs)}".rstrip()]
        row += [cell(figures(runs, figure), unit, digits) for _, figure, unit, digits in wanted]
        row.append(ledger(runs))
        rows.append(row)
    yield from table(["broker", *(name for name, *_ in wanted), "ledger"], rows)
    others = [f"{broker} with `{text}`" for broker, text in options.items() if text != usual]
    if others:
        yield "Differently: " + "; ".join(others) + "."
        yield ""


def overview(by_scenario, brokers):
    rows = []
    for title, scenario, name in OVERVIEW:
        runs_of = by_scenario.get(scenario)
        if not runs_of:
            continue
        _, figure, unit, digits = next(each for each in TABLES[scenario][1] if each[0] == name)
        row = [title]
        for broker in brokers:
            runs = runs_of.get(broker, [])
            values = figures(runs, figure)
            mark = "†" if any(run["failed"] for run in runs) else ""
            space = "" if unit.startswith("/") else " "
            shown = f"{number(statistics.median(values), digits)}{space}{unit}".rstrip() if values else "–"
            row.append(shown + mark)
        rows.append(row)
    yield from table(["median", *brokers], rows)
    if any("†" in text for row in rows for text in row):
        yield "† at least one run of it failed: something is missing, was refused, or the run could not be finished; see below."
        yield ""


def reasons(run):
    """What a run says about its failure."""
    report = run["report"]
    if report is None:
        said = run["said"] or run["broker_said"] or f"exit code {run['exit_code']}"
        return [f"no report: {said}"]
    found = list(report["failures"])
    if run["exit_code"] == 124:
        found.append(f"not finished after {run['seconds']} s, when it was ended")
    elif report["interrupted"]:
        found.append(f"ended early: {report['interrupted']}")
    if run["broker_ended"]:
        found.append(f"the broker ended: {run['broker_said'] or 'it said nothing'}")
    return found


def failures(runs):
    """What went wrong, each sentence once for a scenario and broker."""
    seen = {}
    for run in runs:
        if run["failed"]:
            key = (run["scenario"], run["broker"])
            seen.setdefault(key, []).append((run["round"], "; ".join(reasons(run))))
    for (scenario, broker), rounds in seen.items():
        told = "; ".join(f"round {number}: {text}" for number, text in rounds[:2])
        more = f" (and {len(rounds) - 2} more rounds)" if len(rounds) > 2 else ""
        yield f"- {broker}, {scenario}: {told}{more}"


def main():
    directory = pathlib.Path(sys.argv[1])
    runs = [json.loads(line) for line in (directory / "runs.jsonl").read_text(encoding="utf-8").splitlines()]
    for run in runs:
        run["report"] = json.loads((directory / run["file"]).read_text(encoding="utf-8")) if run["file"] else None
        run["failed"] = run["exit_code"] != 0 or run["broker_ended"]
    brokers = list(dict.fromkeys(run["broker"] for run in runs))
    by_scenario = {}
    for run in runs:
        by_scenario.setdefault(run["scenario"], {}).setdefault(run["broker"], []).append(run)

    print("# This broker and its peers\n")
    print("Medians over the rounds, with (least–most). One broker at a time, each run with a broker of its own, the tool on the")
    print("same cores, over TCP on the loopback interface. CPU is the broker's, user and system; latency counts from the time")
    print("when a message was due; own memory is what connecting added to the anonymous memory.")
    print("Reports with all histograms, for `millstream load report`: [runs/](runs); what was printed: [run.txt](run.txt).\n")
    print("```")
    print((directory / "machine.txt").read_text(encoding="utf-8").rstrip())
    print("```\n")
    print("\n".join(overview(by_scenario, brokers)))
    for scenario, runs_of in by_scenario.items():
        print("\n".join(scenario_section(scenario, runs_of)))
    failed = list(failures(runs))
    if failed:
        print("## What failed\n")
        print("\n".join(failed))
    limits = dict.fromkeys(
        f"- {run['broker']}, {run['scenario']}: {text}"
        for run in runs
        if run["report"]
        for text in run["report"]["tool_was_the_limit"]
    )
    if limits:
        print("\n## Where the tool was the limit\n")
        print("\n".join(limits))


main()
