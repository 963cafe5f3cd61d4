#!/usr/bin/env python3
"""What the summaries say is what the raw data says, and every run is judged: `python3 -B bench-results/tests.py`."""

import contextlib
import http.server
import io
import json
import pathlib
import re
import subprocess
import sys
import tempfile
import threading
import unittest

import engine
import peers
from reports import read_runs

HERE = pathlib.Path(__file__).parent
# Of other programs, which only stand beside ours.
OTHERS = {engine.PEER, "bare-write"}


def directories(kind):
    found = sorted(HERE.glob(f"2*-{kind}"))
    assert found, f"no results of {kind}"
    return found


def printed(function, *arguments):
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        function(*arguments)
    return out.getvalue()


def backends_run(acknowledged, **what):
    streams = [{"name": name, "acknowledged": count} for name, count in acknowledged.items()]
    return {"round": 1, "failed": False, "report": {"streams": streams}, **what}


class Summaries(unittest.TestCase):
    def test_they_are_what_the_data_says(self):
        for kind, program in (("engine", engine), ("peers", peers)):
            for directory in directories(kind):
                with self.subTest(directory=directory.name):
                    committed = (directory / "summary.md").read_text(encoding="utf-8")
                    self.assertEqual(committed, printed(program.summary, directory))

    def test_the_table_of_the_readme_is_one_run(self):
        latest = directories("peers")[-1]
        told = subprocess.run(
            [sys.executable, "-B", HERE / "readme.py", "--check", latest], capture_output=True, text=True, check=False
        )
        self.assertEqual(told.returncode, 0, told.stderr)


class Judgement(unittest.TestCase):
    def test_every_run_of_ours_is_in_a_goal(self):
        for directory in directories("engine"):
            without = engine.unjudged(engine.by_measure(engine.read(directory)))
            self.assertEqual([each for each in without if each[2] not in OTHERS], [])

    def test_every_run_that_the_script_makes_is_in_a_goal(self):
        script = (HERE / "engine.sh").read_text(encoding="utf-8")
        body = script[script.index("runs_of() {") : script.index("is_repeated() {")]
        judged = {(measure, *key) for _, measure, key, *_ in engine.GOALS} | {
            (measure, *beside) for _, measure, _, _, beside, *_ in engine.GOALS if beside
        }
        measures = re.split(r"\n    ([a-z0-9-]+)\)", body)
        made = 0
        for measure, text in zip(measures[1::2], measures[2::2]):
            for variant, broker in re.findall(r'echo "([a-z0-9$-]+) ([a-z0-9$-]+) ', text):
                # Variables stand for several of them.
                shape = [re.escape(word).replace(re.escape("$broker"), ".+") for word in (variant, broker)]
                shape = [re.sub(r"\\\$[a-z]+", ".+", word) for word in shape]
                matching = [key for key in judged if key[0] == measure and all(map(re.fullmatch, shape, key[1:]))]
                self.assertTrue(matching, f"{measure} {variant} {broker} is in no goal")
                made += 1
        self.assertGreater(made, 20)

    def test_what_is_acknowledged_and_not_stored_keeps_no_goal_in_any_variant(self):
        acknowledged = {"chat": 10, "telemetry": 90}
        stored = backends_run(acknowledged, messages_stored=10, readings_stored=90, lag=5, lag_left=0)
        lacking = backends_run(acknowledged, messages_stored=10, readings_stored=89, lag=0, lag_left=0)
        behind = backends_run(acknowledged, messages_stored=10, readings_stored=90, lag=5, lag_left=3)
        # Too many of the one do not stand for too few of the other.
        other = backends_run(acknowledged, messages_stored=11, readings_stored=89, lag=0, lag_left=0)
        self.assertEqual([engine.not_stored(run) for run in (stored, lacking, behind, other)], [0, 1, None, 1])
        wanted = {key for _, measure, key, name, *_ in engine.GOALS if measure == "backends" and name == "acknowledged and not stored"}
        self.assertEqual({variant for variant, _ in wanted}, {"quarter", "burst-4", "burst-10"})
        self.assertEqual(engine.kept([0, 0, 1], engine.AT_MOST, 0), engine.NOT_KEPT)
        self.assertEqual(engine.kept([0, 0, 0], engine.AT_MOST, 0), engine.KEPT)
        self.assertEqual(engine.kept([], engine.AT_MOST, 0), engine.NOT_MEASURED)

    def test_each_goal_is_a_number_and_its_figure_is_in_a_table(self):
        for title, measure, _, name, _, kind, way, goal in engine.GOALS:
            with self.subTest(goal=title):
                self.assertIn(name, [figure[0] for figure in engine.MEASURES[measure][2]])
                self.assertIn((kind, way), [(kind, way) for kind in (engine.FIGURE, engine.RATIO) for way in (engine.AT_MOST, engine.AT_LEAST)])
                self.assertIsInstance(goal, (int, float))

    def test_a_lost_record_is_seen(self):
        run = {"report": {"streams": [{"acknowledged": 100}]}, "in_kafka": 99}
        self.assertEqual(engine.not_in_kafka(run), 1)
        self.assertEqual(engine.not_in_kafka({**run, "in_kafka": 120}), 0)
        self.assertIsNone(engine.not_in_kafka({"report": run["report"]}))


class Effects(unittest.TestCase):
    """What engine.sh asks the node at the end of a run, of a node whose metrics are one of these at each look."""

    def asked(self, looks, patience=60):
        looks = iter(looks)
        last = []

        class Node(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                # Each look of the script asks three times.
                if not last or last[0][1] == 0:
                    last[:] = [[next(looks, last[0][0] if last else None), 3]]
                last[0][1] -= 1
                lag, messages, readings = last[0][0]
                text = f"millstream_chat_messages_total {messages}\nmillstream_iot_readings_total {readings}\n"
                if lag is not None:
                    text += f'millstream_consumer_lag_records{{partition="0"}} {lag}\n'
                self.send_response(200)
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *arguments):
                pass

        node = http.server.HTTPServer(("127.0.0.1", 0), Node)
        threading.Thread(target=node.serve_forever, daemon=True).start()
        script = (HERE / "engine.sh").read_text(encoding="utf-8")
        functions = "\n".join(re.search(rf"^{name}\(\) {{\n.*?^}}$", script, re.M | re.S)[0] for name in ("metric", "acknowledged", "effects"))
        with tempfile.NamedTemporaryFile("w", suffix=".json") as report:
            json.dump({"streams": [{"name": "chat", "acknowledged": 10}, {"name": "telemetry", "acknowledged": 90}]}, report)
            report.flush()
            told = subprocess.run(
                ["bash", "-euo", "pipefail", "-c", f"HTTP_PORT={node.server_port} BACKENDS_SECONDS_MAX={patience}\nsleep() {{ :; }}\n{functions}\neffects {report.name}"],
                capture_output=True,
                text=True,
                check=True,
            )
        node.shutdown()
        node.server_close()
        return json.loads("{" + told.stdout.lstrip(",") + "}")

    def test_a_lag_of_0_before_all_is_stored_is_not_believed(self):
        # At first the lag alone is asked for, which is one of three.
        first = (7, 0, 0)
        rebuilt = [(0, 10, 40), (None, 10, 40), (0, 10, 80), (0, 10, 90)]
        told = self.asked([first, *rebuilt])
        self.assertEqual((told["messages_stored"], told["readings_stored"], told["lag_left"]), (10, 90, 0))

    def test_what_never_comes_is_told_as_it_is(self):
        told = self.asked([(0, 10, 89)], patience=0)
        self.assertEqual((told["messages_stored"], told["readings_stored"], told["lag_left"]), (10, 89, 0))
        told = self.asked([(5, 10, 90)], patience=0)
        self.assertEqual(told["lag_left"], 5)


class Raw(unittest.TestCase):
    def test_each_run_that_is_named_is_there(self):
        for kind in ("engine", "peers"):
            for directory in directories(kind):
                for run in read_runs(directory):
                    self.assertTrue(run["file"] == "" or (directory / run["file"]).exists(), run["file"])

    def test_each_directory_is_cited(self):
        texts = "".join((HERE.parent / name).read_text(encoding="utf-8") for name in ("README.md", "docs/PERFORMANCE.md"))
        for directory in HERE.glob("2*"):
            self.assertTrue(directory.name in texts, f"{directory.name} is cited nowhere")


if __name__ == "__main__":
    unittest.main()
