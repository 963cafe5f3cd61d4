#!/usr/bin/env python3
"""Turns the runs of bench-results/engine.sh into tables: least, median and most over the rounds, against the goals.

    bench-results/engine.py DIRECTORY > DIRECTORY/summary.md
    bench-results/engine.py --watch PID FILE

DIRECTORY holds machine.txt, runs.jsonl (one line a run) and what that names: reports of `millstream load`, and what other
programs printed. --watch writes the time in milliseconds since 1970 and the anonymous memory of a process in bytes, fifty
times a second, until the process has ended.
"""

import pathlib
import re
import statistics
import sys
import time
import tomllib

from reports import (
    added_per_client,
    broker_cores,
    cell,
    connect_latency,
    connects_per_cpu_second,
    connects_per_second,
    count_range,
    cpu_for,
    cpu_us,
    delivered,
    endings,
    latency,
    ledger,
    marks,
    over,
    per_second,
    read_runs,
    refused,
    sent,
    table,
    total,
)

WATCH_SECONDS = 0.02

# ------------------------------------------------------------------------------------------------------------- figures
# Each takes a run and gives a number, or None where there is none.


def of(figure):
    """A figure of the run's report."""
    return lambda run: figure(run["report"]) if run["report"] else None


def deliveries_per_cpu_second(report):
    used = cpu_us(report)
    return over(delivered(report) * 1e6, used) if used else None


def not_accepted(report):
    """Connections that the broker refused or ended or that never came to be, and clients that were never accepted."""
    connects = report["connects"]
    return sum(connects["closed"].values()) + max(0, connects["clients"] - connects["accepted"])


def not_once(report):
    """Messages that did not arrive exactly once."""
    return total(report, "audiences", "missing") + total(report, "audiences", "duplicates")


def of_all_others(quantile):
    """The latency of deliveries to groups that read: the slow ones of `slow-reader` are groups of their own."""

    def figure(report):
        scenario = tomllib.loads(report["scenario_toml"])
        slow = {group["name"] for group in scenario["group"] if "read_bytes_per_second" in group}
        read = [each["latency"] for each in report["audiences"] if each["group"] not in slow]
        return max((each[quantile] for each in read if each["count"]), default=None)

    return figure


def memory_per_filter(report):
    server = report["server"]
    if not server:
        return None
    added = server["connected"]["anonymous_bytes"] - server["before"]["anonymous_bytes"]
    return over(added, report["connects"]["granted"])


def topic_and_payload_bytes(stream):
    """Of one retained message, on average. The topic's numbers are as the scenario writes them."""
    topics = stream["topics"]
    names = (stream["topic"].replace("{n/1000}", str(n // 1000)).replace("{n%1000}", str(n % 1000)) for n in range(topics))
    return sum(map(len, names)) / topics + stream["payload_bytes"]


def filled(report):
    """The last second with all retained messages there and none delivered: its number, and the memory at its end."""
    published, arrived, found = 0, 0, None
    for at, second in enumerate(report["seconds"]):
        published += second["sent"]
        arrived += second["delivered"]
        if second["server"] and arrived == 0 and published == total(report, "streams", "due"):
            found = (at, second["server"]["anonymous_bytes"])
    return found


def bytes_per_topic(report):
    at_end = filled(report)
    if not at_end:
        return None
    stream = tomllib.loads(report["scenario_toml"])["stream"][0]
    added = at_end[1] - report["server"]["connected"]["anonymous_bytes"]
    return added / stream["topics"] - topic_and_payload_bytes(stream)


def growth_while_streaming(run):
    """The most memory while retained messages go out, beyond what there was before, in bytes."""
    report = run["report"]
    at_end = filled(report) if report else None
    if not at_end or not run["memory"]:
        return None
    begin_ms = report["began_at_ms"] + (at_end[0] + 1) * 1000
    seen = [memory for at_ms, memory in run["memory"] if at_ms >= begin_ms]
    return max(0, max(seen) - at_end[1]) / 1e6 if seen else None


def streamed(report):
    stream = tomllib.loads(report["scenario_toml"])["stream"][0]
    return total(report, "audiences", "delivered") * topic_and_payload_bytes(stream) / 1e6


def kafka_cpu(run):
    """Over the whole run, the warm-up included, in microseconds for each message that was acknowledged."""
    if not run["report"] or "kafka_cpu_s" not in run:
        return None
    return over(run["kafka_cpu_s"] * 1e6, total(run["report"], "streams", "acknowledged"))


def not_in_kafka(run):
    """What was acknowledged and is not in Kafka, where nothing else is in it."""
    if not run["report"] or "in_kafka" not in run:
        return None
    return max(0, total(run["report"], "streams", "acknowledged") - run["in_kafka"])


def not_stored(run):
    """What was acknowledged and not stored by the backend that it is for, when they had read all: two sets of counts. While
    they still had something to read nothing can be said."""
    if not run["report"] or "readings_stored" not in run or run.get("lag_left", 0) > 0:
        return None
    acknowledged = {stream["name"]: stream["acknowledged"] for stream in run["report"]["streams"]}
    stored = {"chat": run["messages_stored"], "telemetry": run["readings_stored"]}
    return sum(max(0, acknowledged[name] - stored[name]) for name in stored)


def lookup(matches, value=1):
    """Of what the example `lookup` printed: nanoseconds of the median round for topics with so many matches, the largest
    of the workloads that have it; in microseconds."""

    def figure(run):
        found = re.findall(r"lookup (\d+) ns \(median (\d+)\) at ([\d.]+) matches", run["printed"])
        nanos = [int(each[value]) for each in found if round(float(each[2])) == matches]
        return max(nanos) / 1000 if nanos else None

    return figure


CPU_DELIVERY = ("CPU per delivery", of(cpu_for(delivered)), "µs", 3)
CPU_MESSAGE = ("CPU per message, in or out", of(cpu_for(lambda report: sent(report) + delivered(report))), "µs", 2)
DELIVERED_RATE = ("delivered", of(per_second(delivered)), "/s", 0)
CORES = ("broker's cores busy", of(broker_cores), "", 2)
PER_CLIENT = ("own memory per client", of(added_per_client("anonymous_bytes")), "B", 0)
CONNECT_SECONDS = ("connected in", of(lambda report: report["connects"]["seconds"]), "s", 1)
DELIVERY = [(f"delivered, {name}", of(latency("audiences", key)), "ms", 2) for name, key in [("p50", "p50_ms"), ("p99", "p99_ms")]]
ACKNOWLEDGED = [
    (f"PUBACK, {name}", of(latency("streams", key)), "ms", 1)
    for name, key in [("p50", "p50_ms"), ("p99", "p99_ms"), ("p99.9", "p999_ms")]
]

# measure: (title, what is to be known about it, the figures of its table)
MEASURES = {
    "idle": (
        "Idle clients with one subscription each",
        "Own memory is what connecting added to the broker's anonymous memory.",
        [PER_CLIENT, ("kernel memory per client, both ends", of(added_per_client("socket_bytes", "slab_bytes")), "B", 0), CORES],
    ),
    "connect": (
        "Connecting",
        "All at once, and at a steady rate.",
        [
            ("connects per CPU second", of(connects_per_cpu_second), "", 0),
            ("connects", of(connects_per_second), "/s", 0),
            ("accepted, p99", of(connect_latency("p99_ms")), "ms", 1),
            ("not accepted", of(not_accepted), "", 0),
        ],
    ),
    "fan-out-bursts": (
        "1 → 1,000, QoS 0, bursts of 100",
        "A burst a second for both; for ours also ten.",
        [("deliveries per CPU second", of(deliveries_per_cpu_second), "", 0), CPU_DELIVERY, *DELIVERY, DELIVERED_RATE, CORES],
    ),
    "fan-out-one": (
        "1 → 1,000, QoS 0, one message at a time",
        "`bare-write` writes the same bytes to the same clients with one `write` each and does nothing else, on one thread;"
        " `millstream-1` has one worker, `millstream` one a core.",
        [CPU_DELIVERY, *DELIVERY, DELIVERED_RATE, CORES],
    ),
    "pairs": (
        "300 pairs, QoS 1",
        "`rate-N`: N messages a second in and as many out, the same for both brokers. `window-N`: no schedule, as many as a"
        " window of N a publisher lets.",
        [CPU_MESSAGE, ("in and out", of(per_second(lambda report: sent(report) + delivered(report))), "/s", 0), *ACKNOWLEDGED[:2], *DELIVERY, CORES],
    ),
    "wildcard": (
        "A million filters with `+` and `#`, five levels deep",
        "Publishing to a broker with them, each topic at random and with one match; and the lookup alone, by"
        " `target/release/examples/lookup` (the slowest of its workloads with so many matches, median round, a thread's CPU time).",
        [
            ("CPU per publish with its delivery", of(cpu_for(sent)), "µs", 2),
            *DELIVERY,
            ("own memory per filter", of(memory_per_filter), "B", 0),
            ("lookup, 1 match", lookup(1), "µs", 2),
            ("8 matches", lookup(8), "µs", 2),
            ("32 matches", lookup(32), "µs", 2),
        ],
    ),
    "retained": (
        "A million retained messages, and a late subscriber to all of them",
        "Bytes a topic are what publishing added to the broker's anonymous memory, without the topic's and the payload's own"
        " bytes. Growth is the most that was seen, fifty times a second, from the second before the subscriber came.",
        [
            ("beyond topic and payload", of(bytes_per_topic), "B", 0),
            ("not exactly once", of(not_once), "", 0),
            ("growth while streaming", growth_while_streaming, "MB", 1),
            ("streamed", of(streamed), "MB", 0),
        ],
    ),
    "slow-reader": (
        "1 → 1,000, with and without one subscriber that reads nothing",
        "Latencies of those who read.",
        [
            ("delivered, p50", of(of_all_others("p50_ms")), "ms", 2),
            ("delivered, p99", of(of_all_others("p99_ms")), "ms", 2),
            ("delivered, p99.9", of(of_all_others("p999_ms")), "ms", 2),
            CPU_DELIVERY,
        ],
    ),
    "workers": (
        "One thread and two",
        "Simulated, as many messages as the windows let. Each thread has a worker of the broker and its share of the clients,"
        " so that with two threads both cores are the broker's and its clients' alike: what is compared is the throughput of"
        " all of it on one core and on two.",
        [DELIVERED_RATE, CPU_MESSAGE, CORES],
    ),
    "simulated": (
        "A million idle clients without sockets",
        "Broker, clients and the tool's own ledger together.",
        [PER_CLIENT, CONNECT_SECONDS, ("connects", of(connects_per_second), "/s", 0)],
    ),
    "persisted": (
        "QoS 1, acknowledged when a real Kafka has stored it",
        "1,000 publishers, 200 bytes; load, broker and Kafka on the same cores, an empty Kafka for each run. Latency counts"
        " from the time when a message was due.",
        [
            ("acknowledged", of(per_second(lambda report: total(report, "streams", "acknowledged_measured"))), "/s", 0),
            *ACKNOWLEDGED,
            ("acknowledged and not in Kafka", not_in_kafka, "", 0),
            ("broker's CPU per message", of(cpu_for(sent)), "µs", 2),
            ("Kafka's", kafka_cpu, "µs", 2),
        ],
    ),
    "backends": (
        "Through Kafka, the three backends and back",
        "2,000 clients: one message in ten is a chat message that the chat backend answers with a receipt, nine are readings that"
        " the IoT backend stores. The load, the node with its backends and Kafka on the same cores, an empty Kafka and empty"
        " databases for each run. An answer's latency counts from the time when its message was due to the receipt at its writer;"
        " lag is what the three backends had still to read when the load had ended; what they stored was read when they had read all.",
        [
            ("acknowledged", of(per_second(lambda report: total(report, "streams", "acknowledged_measured"))), "/s", 0),
            *[(f"answered, {name}", of(latency("audiences", key)), "ms", 0) for name, key in [("p50", "p50_ms"), ("p90", "p90_ms"), ("p99", "p99_ms"), ("p99.9", "p999_ms")]],
            *ACKNOWLEDGED[:2],
            ("acknowledged and not stored", not_stored, "", 0),
            ("lag", lambda run: run.get("lag"), "", 0),
            ("node's cores busy", of(broker_cores), "", 2),
        ],
    ),
    "mixed-10m": (
        "Ten million simulated clients, five million messages a minute",
        "Broker, clients and the tool's own ledger together.",
        [PER_CLIENT, CONNECT_SECONDS, DELIVERED_RATE, *ACKNOWLEDGED, *DELIVERY, CORES],
    ),
}

AT_MOST, AT_LEAST = "≤", "≥"
KEPT, NOT_KEPT, NOT_MEASURED = "yes", "**no**", "not measured"

# Rows of the first table: (what, measure, its run as (variant, broker), name of the figure, what is beside it or None,
# whether the goal is for the figure or for its ratio to what is beside it, which way, the goal)
FIGURE, RATIO = "figure", "ratio"
OURS = "millstream"
PEER = "mosquitto"
GOALS = [
    ("own memory of an idle client", "idle", ("tcp", OURS), "own memory per client", ("tcp", PEER), FIGURE, AT_MOST, 640),
    ("connects per CPU second, storm", "connect", ("storm", OURS), "connects per CPU second", ("storm", PEER), FIGURE, AT_LEAST, 20_000),
    ("not accepted", "connect", ("storm", OURS), "not accepted", ("storm", PEER), FIGURE, AT_MOST, 0),
    ("connects per CPU second, 3,000/s", "connect", ("steady", OURS), "connects per CPU second", ("steady", PEER), FIGURE, AT_LEAST, 20_000),
    ("not accepted", "connect", ("steady", OURS), "not accepted", ("steady", PEER), FIGURE, AT_MOST, 0),
    ("deliveries per CPU second, bursts of 100", "fan-out-bursts", ("bursts", OURS), "deliveries per CPU second", ("bursts", PEER), FIGURE, AT_LEAST, 3_000_000),
    ("the same, ten bursts a second", "fan-out-bursts", ("more-bursts", OURS), "deliveries per CPU second", None, FIGURE, AT_LEAST, 3_000_000),
    ("CPU per delivery, one at a time", "fan-out-one", ("one", OURS), "CPU per delivery", ("one", "bare-write"), RATIO, AT_MOST, 1.25),
    ("the same, one worker", "fan-out-one", ("one", "millstream-1"), "CPU per delivery", ("one", "bare-write"), RATIO, AT_MOST, 1.25),
    ("pairs, CPU per message at 20,000/s", "pairs", ("rate-10000", OURS), "CPU per message, in or out", ("rate-10000", PEER), RATIO, AT_MOST, 0.6),
    ("pairs, CPU per message at 35,000/s", "pairs", ("rate-17500", OURS), "CPU per message, in or out", ("rate-17500", PEER), RATIO, AT_MOST, 0.6),
    ("pairs, CPU per message, 50 in flight", "pairs", ("window-50", OURS), "CPU per message, in or out", ("window-50", PEER), RATIO, AT_MOST, 0.2),
    ("pairs, CPU per message, one in flight", "pairs", ("window-1", OURS), "CPU per message, in or out", ("window-1", PEER), RATIO, AT_MOST, 1),
    ("pairs, highest rate, one in flight", "pairs", ("window-1", OURS), "in and out", ("window-1", PEER), RATIO, AT_LEAST, 1),
    ("pairs, highest rate, 50 in flight", "pairs", ("window-50", OURS), "in and out", ("window-50", PEER), RATIO, AT_LEAST, 5),
    ("CPU per publish, a million wildcard filters", "wildcard", ("publish", OURS), "CPU per publish with its delivery", None, FIGURE, AT_MOST, 40),
    ("lookup among a million filters, 1 match", "wildcard", ("alone", "lookup"), "lookup, 1 match", None, FIGURE, AT_MOST, 2),
    ("8 matches", "wildcard", ("alone", "lookup"), "8 matches", None, FIGURE, AT_MOST, 2),
    ("32 matches", "wildcard", ("alone", "lookup"), "32 matches", None, FIGURE, AT_MOST, 2),
    ("a retained topic, beyond topic and payload", "retained", ("million", OURS), "beyond topic and payload", None, FIGURE, AT_MOST, 200),
    ("retained messages not exactly once", "retained", ("million", OURS), "not exactly once", None, FIGURE, AT_MOST, 0),
    ("growth while a million retained messages go out", "retained", ("million", OURS), "growth while streaming", None, FIGURE, AT_MOST, 16),
    ("p99 of the others beside one that reads nothing", "slow-reader", ("one-does-not", OURS), "delivered, p99", ("all-read", OURS), RATIO, AT_MOST, 1.1),
    ("pairs, two threads", "workers", ("pairs-2", "simulated"), "delivered", ("pairs-1", "simulated"), RATIO, AT_LEAST, 1.8),
    ("a simulated client of a million", "simulated", ("idle", "simulated"), "own memory per client", None, FIGURE, AT_MOST, 500),
    ("persisted, PUBACK p99 at 83,333/s, even", "persisted", ("even", "millstream-kafka"), "PUBACK, p99", None, FIGURE, AT_MOST, 15),
    ("persisted, PUBACK p99 at 83,333/s, bursts of 4", "persisted", ("burst-4", "millstream-kafka"), "PUBACK, p99", None, FIGURE, AT_MOST, 15),
    ("persisted, acknowledged of 150,000/s, bursts of 10", "persisted", ("burst-10", "millstream-kafka"), "acknowledged", None, FIGURE, AT_LEAST, 149_000),
    *[
        (f"persisted, acknowledged and not in Kafka, {variant}", "persisted", (variant, "millstream-kafka"), "acknowledged and not in Kafka", None, FIGURE, AT_MOST, 0)
        for variant in ("even", "burst-4", "burst-10")
    ],
    ("through the backends and back, p99 at 20,000/s", "backends", ("quarter", "millstream-up"), "answered, p99", None, FIGURE, AT_MOST, 250),
    ("the same at 83,333/s, bursts of 4", "backends", ("burst-4", "millstream-up"), "answered, p99", None, FIGURE, AT_MOST, 250),
    ("the same at 83,333/s, bursts of 10", "backends", ("burst-10", "millstream-up"), "answered, p99", None, FIGURE, AT_MOST, 250),
    *[
        (f"acknowledged and not stored by its backend, {variant}", "backends", (variant, "millstream-up"), "acknowledged and not stored", None, FIGURE, AT_MOST, 0)
        for variant in ("quarter", "burst-4", "burst-10")
    ],
    ("ten million clients, delivered", "mixed-10m", ("mixed", "simulated"), "delivered", None, FIGURE, AT_LEAST, 83_000),
    ("a simulated client of ten million", "mixed-10m", ("mixed", "simulated"), "own memory per client", None, FIGURE, AT_MOST, 500),
]

# -------------------------------------------------------------------------------------------------------------- tables


def by_round(runs, figure):
    """The figure of each round that has one."""
    found = {run["round"]: figure(run) for run in runs}
    return {at: value for at, value in found.items() if value is not None}


def ratios(ours, others):
    """Of what was measured in the same round."""
    return [ours[at] / others[at] for at in ours if others.get(at)]


def name_beside(key, beside):
    """What tells the two apart: the broker, or else the variant."""
    return beside[1] if beside[1] != key[1] else beside[0]


def goal_text(kind, way, goal, unit):
    if goal == 0:
        return "0"
    shown = f"{goal:,}"
    return f"{way} {shown} ×" if kind == RATIO else f"{way} {shown} {unit}".rstrip()


def kept(values, way, goal):
    """Whether the median keeps the goal; of what must not happen at all, whether no round had it."""
    if not values:
        return NOT_MEASURED
    median = max(values) if (way, goal) == (AT_MOST, 0) else statistics.median(values)
    return KEPT if (median <= goal if way == AT_MOST else median >= goal) else NOT_KEPT


def unjudged(runs_of):
    """What was measured and is in no goal, neither as ours nor as what stands beside it."""
    judged = {(measure, *key) for _, measure, ours, _, beside, *_ in GOALS for key in (ours, beside) if key}
    return [(measure, *key) for measure, by_key in runs_of.items() for key in by_key if (measure, *key) not in judged]


def goals(runs_of):
    rows = []
    for title, measure, key, name, beside, kind, way, goal in GOALS:
        if measure not in runs_of:
            continue
        _, figure, unit, digits = next(each for each in MEASURES[measure][2] if each[0] == name)
        mine = runs_of[measure].get(key, [])
        other = runs_of[measure].get(beside, []) if beside else []
        ours, others = by_round(mine, figure), by_round(other, figure)
        compared = ratios(ours, others)
        mark = " †" if any(run["failed"] for run in mine + other) else ""
        rows.append(
            [
                title + mark,
                cell(list(ours.values()), unit, digits),
                f"{cell(list(others.values()), unit, digits)}, {name_beside(key, beside)}" if beside else "",
                cell(compared, "×", 2) if compared else "",
                goal_text(kind, way, goal, unit),
                kept(compared if kind == RATIO else list(ours.values()), way, goal),
            ]
        )
    yield from table(["median (least–most)", "ours", "beside it", "ratio", "goal", "kept"], rows)
    ends = [row[-1] for row in rows]
    yield f"{ends.count(KEPT)} goals are kept, {ends.count(NOT_KEPT)} are not, {ends.count(NOT_MEASURED)} were not measured."
    yield ""
    without = unjudged(runs_of)
    if without:
        yield "No goal looks at: " + ", ".join(" ".join(each) for each in without) + "."
        yield ""
    if any("†" in row[0] for row in rows):
        yield "† at least one of its runs failed: see below."
        yield ""


def stored(runs):
    """The ledger of messages that had to be in Kafka."""
    reports = [run["report"] for run in runs if run["report"]]
    if not reports:
        return "no report"
    streams = [(name, [total(report, "streams", name) for report in reports]) for name in ("due", "sent", "acknowledged", "unanswered")]
    streams.append(("refused", [refused(report) for report in reports]))
    text = ", ".join(f"{count_range(values)} {name}" for name, values in streams)
    records = [run["in_kafka"] for run in runs if "in_kafka" in run]
    return f"{text}, {count_range(records)} in Kafka" if records else text


def section(measure, by_key):
    title, about, wanted = MEASURES[measure]
    yield f"## {title}"
    yield ""
    yield about
    yield ""
    # A figure that no run has (of another program, or of a process that was not looked at) is no column.
    columns = [each for each in wanted if any(by_round(runs, each[1]) for runs in by_key.values())]
    rows = []
    for (variant, broker), runs in by_key.items():
        row = [f"{variant} {broker} {marks(runs)}".rstrip()]
        row += [cell(list(by_round(runs, figure).values()), unit, digits) for _, figure, unit, digits in columns]
        row.append(stored(runs) if measure in ("persisted", "backends") else "" if broker == "lookup" else ledger(runs))
        rows.append(row)
    yield from table([f"`{measure}`", *(name for name, *_ in columns), "ledger"], rows)
    commands = {}
    for (variant, broker), runs in by_key.items():
        program = "lookup" if broker == "lookup" else "millstream load"
        commands.setdefault(f"{program} {runs[0]['options']}", []).append(variant)
    for command, variants in commands.items():
        yield f"- {', '.join(dict.fromkeys(variants))}: `{command}`"
    yield ""


# ---------------------------------------------------------------------------------------------------------------- main


def read_memory(path):
    if not path.exists():
        return []
    # The last line may have been written by half.
    lines = (line.split() for line in path.read_text(encoding="utf-8").splitlines())
    return [(int(line[0]), int(line[1])) for line in lines if len(line) == 2]


def read(directory):
    runs = read_runs(directory)
    for run in runs:
        path = directory / run["file"]
        run["printed"] = path.read_text(encoding="utf-8") if path.suffix == ".txt" else ""
        run["memory"] = read_memory(path.with_suffix(".memory.txt")) if path.suffix == ".json" else []
    # In the order of this file, whichever was measured first.
    runs.sort(key=lambda run: list(MEASURES).index(run["measure"]))
    return runs


def by_measure(runs):
    runs_of = {}
    for run in runs:
        runs_of.setdefault(run["measure"], {}).setdefault((run["variant"], run["broker"]), []).append(run)
    return runs_of


def summary(directory):
    runs = read(directory)
    runs_of = by_measure(runs)
    print("# The engine\n")
    print("Medians over the rounds, with (least–most); a ratio is of what was measured in the same round. Each run with a broker")
    print("of its own, the tool on the same cores, over TCP on the loopback interface where nothing else is said. CPU is the")
    print("broker's, user and system; latency counts from the time when a message was due.")
    print("Reports with all histograms, for `millstream load report`: [runs/](runs); what was printed: [run.txt](run.txt).\n")
    print("```")
    print((directory / "machine.txt").read_text(encoding="utf-8").rstrip())
    print("```\n")
    print("\n".join(goals(runs_of)))
    for measure, by_key in runs_of.items():
        print("\n".join(section(measure, by_key)))
    for line in endings(runs, lambda run: f"{run['measure']} {run['variant']}"):
        print(line)


def watch(pid, path):
    status = pathlib.Path(f"/proc/{pid}/status")
    with open(path, "w", encoding="utf-8") as out:
        while True:
            try:
                text = status.read_text(encoding="utf-8")
            except OSError:
                return
            found = re.search(r"^RssAnon:\s+(\d+) kB", text, re.MULTILINE)
            # One that has ended and was not waited for has no memory.
            if not found:
                return
            out.write(f"{time.time_ns() // 1_000_000} {int(found[1]) * 1024}\n")
            time.sleep(WATCH_SECONDS)


def main():
    match sys.argv[1:]:
        case ["--watch", pid, path]:
            watch(pid, path)
        case [directory] if not directory.startswith("-"):
            summary(pathlib.Path(directory))
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main()
