#!/usr/bin/env python3
"""Turns the runs of bench-results/peers.sh into tables: least, median and most over the rounds, per scenario and broker.

    bench-results/peers.py DIRECTORY > DIRECTORY/summary.md

DIRECTORY holds machine.txt, runs.jsonl (one line a run) and the reports of `millstream load` that it names.
"""

import pathlib
import statistics
import sys

from reports import (
    added_per_client,
    broker_cores,
    cell,
    connect_latency,
    connects_per_cpu_second,
    connects_per_second,
    cpu_for,
    delivered,
    endings,
    figures,
    latency,
    ledger,
    marks,
    number,
    over,
    per_second,
    read_runs,
    sent,
    table,
    total,
)


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


def by_scenario_and_broker(runs):
    by_scenario = {}
    for run in runs:
        by_scenario.setdefault(run["scenario"], {}).setdefault(run["broker"], []).append(run)
    return by_scenario


def summary(directory):
    runs = read_runs(directory)
    brokers = list(dict.fromkeys(run["broker"] for run in runs))
    by_scenario = by_scenario_and_broker(runs)

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
    for line in endings(runs, lambda run: run["scenario"]):
        print(line)


if __name__ == "__main__":
    summary(pathlib.Path(sys.argv[1]))
