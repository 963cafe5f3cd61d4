"""Figures of reports of `millstream load`, and how the summaries show them: for peers.py and engine.py.

A run is a line of runs.jsonl, with its report under "report" (None when there is none) and "failed". The figures follow
from the reports' counts as in loadgen/src/report/derived.rs.
"""

import json
import statistics

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


def failures(runs, what):
    """What went wrong, each sentence once for a broker and what `what` names of a run."""
    seen = {}
    for run in runs:
        if run["failed"]:
            seen.setdefault((run["broker"], what(run)), []).append((run["round"], "; ".join(reasons(run))))
    for (broker, name), rounds in seen.items():
        told = "; ".join(f"round {number}: {text}" for number, text in rounds[:2])
        more = f" (and {len(rounds) - 2} more rounds)" if len(rounds) > 2 else ""
        yield f"- {broker}, {name}: {told}{more}"


def limits(runs, what):
    """Where the tool was the limit, each sentence once."""
    return dict.fromkeys(
        f"- {run['broker']}, {what(run)}: {text}"
        for run in runs
        if run["report"]
        for text in run["report"]["tool_was_the_limit"]
    )


def endings(runs, what):
    """The last sections of a summary."""
    failed = list(failures(runs, what))
    if failed:
        yield "## What failed\n"
        yield from failed
    limited = limits(runs, what)
    if limited:
        yield "\n## Where the tool was the limit\n"
        yield from limited


def read_runs(directory):
    """The runs of a directory, with their reports."""
    runs = [json.loads(line) for line in (directory / "runs.jsonl").read_text(encoding="utf-8").splitlines()]
    for run in runs:
        run["report"] = None
        if run["file"].endswith(".json"):
            run["report"] = json.loads((directory / run["file"]).read_text(encoding="utf-8"))
        run["failed"] = run["exit_code"] != 0 or run["broker_ended"]
    return runs
