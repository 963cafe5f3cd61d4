#!/usr/bin/env python3
"""Writes the table of README.md from the raw data of one run of bench-results/peers.sh.

    bench-results/readme.py DIRECTORY            into README.md, between the two marks there
    bench-results/readme.py --check DIRECTORY    only says whether it is there as the data has it

One run, one tool, and one meaning of a message: a delivery to a subscriber. What its publish costs is in the delivery's CPU.
"""

import pathlib
import statistics
import sys

from peers import by_scenario_and_broker
from reports import added_per_client, connects_per_cpu_second, cpu_for, delivered, figures, number, per_second, read_runs, table

README = pathlib.Path(__file__).parent.parent / "README.md"
BEGIN, END = "<!-- measured: written by bench-results/readme.py -->", "<!-- measured: end -->"

# (title, scenario, figure, unit, digits, whether less is better)
ROWS = [
    ("user memory of an idle client with a subscription", "idle", added_per_client("anonymous_bytes"), "B", 0, min),
    ("connects for a second of CPU, all at once", "connect-storm", connects_per_cpu_second, "", 0, max),
    ("CPU of a delivery, 1 → 500, QoS 0, one at a time", "fan-out", cpu_for(delivered), "µs", 1, min),
    ("the same in bursts of 100", "fan-out-bursts", cpu_for(delivered), "µs", 2, min),
    ("CPU of a delivery, 300 pairs, QoS 1, 5,000 a second", "pairs", cpu_for(delivered), "µs", 1, min),
    ("deliveries a second, 300 pairs, QoS 1, 50 in flight", "pairs-highest", per_second(delivered), "/s", 0, max),
]


def lines(directory):
    runs = read_runs(directory)
    by_scenario = by_scenario_and_broker(runs)
    brokers = list(dict.fromkeys(run["broker"] for run in runs))
    rows, failed = [], False
    for title, scenario, figure, unit, digits, best in ROWS:
        medians = {broker: figures(by_scenario.get(scenario, {}).get(broker, []), figure) for broker in brokers}
        medians = {broker: statistics.median(values) for broker, values in medians.items() if values}
        marked = {broker for broker in brokers if any(run["failed"] for run in by_scenario.get(scenario, {}).get(broker, []))}
        failed = failed or bool(marked)
        sound = [value for broker, value in medians.items() if broker not in marked]
        row = [title]
        for broker in brokers:
            if broker not in medians:
                row.append("–")
                continue
            text = f"{number(medians[broker], digits)}{'' if unit.startswith('/') else ' '}{unit}".rstrip()
            is_best = broker not in marked and medians[broker] == best(sound)
            row.append((f"**{text}**" if is_best else text) + ("†" if broker in marked else ""))
        rows.append(row)
    rounds = max(run["round"] for run in runs)
    machine = dict(line.split(":", 1) for line in (directory / "machine.txt").read_text(encoding="utf-8").splitlines() if ":" in line)
    name = f"bench-results/{directory.resolve().name}"
    yield f"{machine['processor'].strip()}, the brokers in turns, each with the load on the same cores; medians of {rounds} rounds on {machine['date'].strip()[:10]}, with raw"
    yield f"data and commands in [{directory.resolve().name}]({name}/summary.md):"
    yield ""
    yield from table(["", *("Millstream" if broker == "millstream" else broker for broker in brokers)], rows)
    if failed:
        yield "† did not pass: connections closed, messages missing or with another QoS, or not done in time."
        yield ""


def main():
    check = sys.argv[1:2] == ["--check"]
    if len(sys.argv) != 2 + check:
        sys.exit(__doc__)
    text = README.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    made = "\n".join([before + BEGIN, *lines(pathlib.Path(sys.argv[1 + check])), END + after])
    if check:
        sys.exit(0 if made == text else "README.md has another table than the data: bench-results/readme.py DIRECTORY writes it")
    README.write_text(made, encoding="utf-8")


if __name__ == "__main__":
    main()
