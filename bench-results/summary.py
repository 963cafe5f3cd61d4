#!/usr/bin/env python3
"""Turns the raw records of bench-results/run.sh into a table: the median over the rounds, per measure and broker.

    bench-results/summary.py raw.jsonl machine.txt > summary.md
"""

import json
import statistics
import sys

# (title, measure, options that tell its variants apart, figure, unit, digits, the goal as a text)
ROWS = [
    ("own memory per idle client with one subscription", "idle", {}, ("bytes_per_client",), "B", 0, "≤ 640 B"),
    ("CPU per delivery, QoS 0, 1 → 500, one message at a time", "fan-out", {"burst": 1}, ("delivery", "broker_cpu_us"), "µs", 2, 0.6),
    ("the same in bursts of 100", "fan-out", {"burst": 100}, ("delivery", "broker_cpu_us"), "µs", 3, 0.06),
    ("CPU per message, 300 pairs of QoS 1", "pairs", {}, ("message", "broker_cpu_us"), "µs", 2, 0.65),
    ("CPU per publish to one of 1,000 topics", "topics", {"topics": 1_000}, ("publish", "broker_cpu_us"), "µs", 2, ""),
    ("CPU per publish to one of 10,000 topics", "topics", {"topics": 10_000}, ("publish", "broker_cpu_us"), "µs", 2, 0.65),
    ("CPU per publish to one of 100,000 topics", "topics", {"topics": 100_000}, ("publish", "broker_cpu_us"), "µs", 2, 0.65),
    ("CPU per publish to one of 1,000,000 topics", "topics", {"topics": 1_000_000}, ("publish", "broker_cpu_us"), "µs", 2, 0.65),
    ("own memory per subscription, 1,000,000 topics", "topics", {"topics": 1_000_000}, ("bytes_per_subscription",), "B", 0, ""),
    ("connects per second, one at a time by one tool", "idle", {}, ("connects_per_second",), "/s", 0, ""),
    ("deliveries per second, 1 → 500, bursts of 100", "fan-out", {"burst": 100}, ("delivery", "per_second"), "/s", 0, ""),
]
OURS, PEER = "millstream", "mosquitto"


def figure(record, path):
    value = record["figures"]
    for key in path:
        value = value[key]
    return value


def values(records, broker, measure, options, path):
    """The figure of every round, or a word that says why there is none."""
    found = [
        record
        for record in records
        if record["broker"] == broker
        and record["measure"] == measure
        and "figures" in record
        and all(record["options"][key] == value for key, value in options.items())
    ]
    return [figure(record, path) for record in found]


def number(value, digits):
    return f"{value:,.{digits}f}"


def median_cell(found, unit, digits):
    if not found:
        return "–"
    cell = f"{number(statistics.median(found), digits)} {unit}"
    if len(found) > 1:
        cell += f" ({number(min(found), digits)}–{number(max(found), digits)})"
    return cell


def goal_cell(goal, ours, peers):
    """A goal that is a number is a part of what the peer needs."""
    if not isinstance(goal, float):
        return goal
    if not ours or not peers:
        return f"≤ {goal} × {PEER}"
    ratio = statistics.median(ours) / statistics.median(peers)
    return f"≤ {goal} × {PEER}: {ratio:.2f} ×"


def turns_table(records):
    brokers = [name for name in (OURS, PEER, "rumqttd") if any(r["broker"] == name for r in records)]
    lines = [
        "| measure | " + " | ".join(brokers) + " | goal |",
        "|---|" + "---|" * (len(brokers) + 1),
    ]
    for title, measure, options, path, unit, digits, goal in ROWS:
        found = {name: values(records, name, measure, options, path) for name in brokers}
        if not any(found.values()):
            continue
        cells = [median_cell(found[name], unit, digits) for name in brokers]
        cells.append(goal_cell(goal, found.get(OURS), found.get(PEER)))
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    if len(lines) == 2:
        return []
    smallest = values(records, OURS, "topics", {"topics": 10_000}, ("publish", "broker_cpu_us"))
    largest = values(records, OURS, "topics", {"topics": 1_000_000}, ("publish", "broker_cpu_us"))
    if smallest and largest:
        ratio = statistics.median(largest) / statistics.median(smallest)
        lines += ["", f"Ours, 1,000,000 topics against 10,000: {ratio:.2f} × (goal ≤ 1.3 ×)."]
    if "rumqttd" in brokers:
        lines += ["", "rumqttd gets 2,000 idle clients and at most 10,000 topics: it needs tens of kilobytes for each client,",
                  "and looks at every filter at the first publish to a topic."]
    return lines


def persisted_table(records):
    runs = [r for r in records if r["measure"] == "persisted" and "figures" in r]
    stored = [r for r in records if r["measure"] == "stored"]
    if not runs:
        return []
    lines = [
        "",
        "## QoS 1, persisted in a real Kafka; load, broker and Kafka on the same cores",
        "",
        "| messages/s due | publishers | acknowledged/s | least in a second | p50 | p99 | p99.9 | max | broker CPU | tool CPU | Kafka CPU | sent = acknowledged + refused + unanswered | unsent | in Kafka |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for run, kafka in zip(runs, stored):
        options, figures = run["options"], run["figures"]
        message, latency, ledger = figures["message"], figures["latency"], figures["ledger"]
        kafka_us = kafka["kafka_cpu_s"] * 1e6 / max(1, ledger["acknowledged"])
        lines.append(
            f"| {options['rate']:,} for {options['seconds']} s | {options['publishers']:,} "
            f"| {message['per_second']:,.0f} | {figures['per_second_min']:,} "
            f"| {latency['p50_ms']:.1f} ms | {latency['p99_ms']:.1f} ms | {latency['p999_ms']:.1f} ms | {latency['max_ms']:.0f} ms "
            f"| {message['broker_cpu_us']:.2f} µs | {message['tool_cpu_us']:.2f} µs | {kafka_us:.2f} µs "
            f"| {ledger['sent']:,} = {ledger['acknowledged']:,} + {sum(ledger['refused'].values()):,} + {ledger['unanswered']:,}"
            f"{'' if figures['ledger_balances'] else ' (DOES NOT BALANCE)'} "
            f"| {figures['unsent']:,} | {kafka['records_in_kafka']:,} |"
        )
    lines += ["", "Latency counts from the time when a message was due. CPU is per message. Goals: 120,000/s for 60 s;",
              "p99 < 15 ms at 83,333/s."]
    return lines


def main():
    raw, machine = sys.argv[1:3]
    with open(raw, encoding="utf-8") as lines:
        records = [json.loads(line) for line in lines]
    print("# Measured\n")
    print("Medians over the rounds (least–most). One tool, one broker at a time, over TCP on the loopback interface.")
    print("Raw records: [raw.jsonl](raw.jsonl); everything that was printed: [run.txt](run.txt).\n")
    print("```")
    with open(machine, encoding="utf-8") as lines:
        print(lines.read().rstrip())
    print("```\n")
    print("\n".join(turns_table(records) + persisted_table(records)))
    failed = [r for r in records if "failed" in r]
    if failed:
        print("\n## Without figures\n")
        for record in failed:
            print(f"- {record['broker']}, `{record['command']}`: {record['failed']}")


main()
