"""Runs the functions with `cargo lambda watch` on the tables, queues and Stripe of `farebox dev`, as infra/README.md says."""

import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import unittest
import urllib.request

from test_template import FUNCTIONS, ROOT, properties

# `cargo lambda` is found beside this Python, where check.sh installs it.
PATH = os.pathsep.join([str(pathlib.Path(sys.executable).parent), os.environ["PATH"]])
# What a function does without: the texts that are built in, no page for customers, 401 in place of 403.
OPTIONAL = {"MAIL_CONFIGURATION_SET", "MAIL_TEMPLATES", "PORTAL_URL", "USAGE_IDENTIFIER_KEY"}
# A first start links the command and each function.
PATIENCE_S = 600


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def wait_until(is_so, what, patience_s=PATIENCE_S):
    end = time.monotonic() + patience_s
    while not is_so():
        if time.monotonic() > end:
            raise AssertionError(f"not in {patience_s} s: {what}")
        time.sleep(0.2)


@unittest.skipUnless(shutil.which("cargo") and shutil.which("cargo-lambda", path=PATH), "cargo and cargo-lambda are not installed")
class LocalLambda(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = pathlib.Path(cls.enterClassContext(tempfile.TemporaryDirectory()))
        cls.port = free_port()
        cls.address = f"http://127.0.0.1:{free_port()}"
        cls.env_file = cls.folder / "dev.env"
        cls.dev = cls.start("dev", "run", "--quiet", "--", "dev", "--port", cls.address.rpartition(":")[2], "--env-file", cls.env_file)
        wait_until(lambda: "Stop with" in cls.said("dev") or cls.dev.poll() is not None, "farebox dev runs")
        cls.watch = cls.start("watch", "lambda", "watch", "--ignore-changes", "--env-file", cls.env_file, "-A", "127.0.0.1", "-P", cls.port)
        wait_until(lambda: cls.watch.poll() is not None or cls.answers(), "cargo lambda watch listens", 30)

    @classmethod
    def start(cls, name, *arguments):
        out = cls.enterClassContext(open(cls.folder / name, "w"))
        process = subprocess.Popen(["cargo", *map(str, arguments)], cwd=ROOT, env=os.environ | {"PATH": PATH}, stdout=out, stderr=out)
        cls.addClassCleanup(cls.stop, process)
        return process

    @staticmethod
    def stop(process):
        process.send_signal(signal.SIGINT)
        process.wait(30)

    @classmethod
    def said(cls, name):
        return (cls.folder / name).read_text()

    @classmethod
    def answers(cls):
        with socket.socket() as client:
            return client.connect_ex(("127.0.0.1", cls.port)) == 0

    def invoke(self, function, file, *moved):
        """Exit code, answer and error of an invocation with an event file, moved to now."""
        event = subprocess.run([sys.executable, ROOT / "events/now.py", file, *moved], capture_output=True, text=True, check=True)
        (self.folder / "event.json").write_text(event.stdout)
        command = ["cargo", "lambda", "invoke", f"farebox-{function}", "-A", "127.0.0.1", "-P", str(self.port), "--data-file"]
        done = subprocess.run([*command, self.folder / "event.json"], cwd=ROOT, env=os.environ | {"PATH": PATH}, capture_output=True,
                              text=True, timeout=PATIENCE_S)
        return done.returncode, done.stdout, done.stderr + self.said("watch")

    def answer(self, function, file, *moved):
        code, answer, error = self.invoke(function, file, *moved)
        self.assertEqual(code, 0, error)
        return json.loads(answer)

    def page(self, name):
        with urllib.request.urlopen(f"{self.address}/_farebox/{name}") as answer:
            return json.load(answer)

    def units(self, customer):
        """What the counter, and what the ledger has of a customer."""
        state = self.page("state")
        counters = [item["units"] for found in state["customers"] if found["id"] == customer for item in found["counters"]]
        counted = sum(units for item in counters for name, units in item.items() if name.startswith("u"))
        return counted, sum(row["units"] for row in state["ledger"] if row["customer"] == customer)

    def key(self, tier):
        return re.search(rf"^{tier}:\n.*x-api-key: (\w+)'", self.said("dev"), re.M)[1]

    def test_a_the_file_has_what_the_template_gives(self):
        given = {line.partition("=")[0] for line in self.env_file.read_text().splitlines()}
        deployed = {name for logical in FUNCTIONS.values() for name in properties(logical)["Environment"]["Variables"]}
        self.assertEqual({name for name in given if not name.startswith("AWS_")}, deployed - OPTIONAL)

    def test_b_the_authorizer_counts(self):
        key = self.key("pro")
        for left in ("99", "98", "97"):
            answer = self.answer("authorizer", "authorizer-rest.json", "--key", key)
            self.assertEqual(answer["policyDocument"]["Statement"][0]["Effect"], "Allow")
            self.assertEqual((answer["context"]["remaining"], answer["context"]["customer"]), (left, "pro-customer"))
        answer = self.answer("authorizer", "authorizer-http.json", "--key", key)
        self.assertEqual((answer["isAuthorized"], answer["context"]["remaining"]), (True, "96"))
        self.assertEqual(self.units("pro-customer")[0], 4)

        code, _, error = self.invoke("authorizer", "authorizer-rest.json")
        self.assertNotEqual(code, 0)
        self.assertIn("Unauthorized", error)
        self.assertNotIn("Diagnostic", self.said("watch"), "a line in the log for every wrong key")
        self.assertFalse(self.answer("authorizer", "authorizer-http.json")["isAuthorized"])
        self.assertEqual(self.units("pro-customer")[0], 4)

    def test_c_the_consumer_folds_and_ticks(self):
        answer = self.answer("consumer", "consumer-usage.json")
        self.assertEqual([failed["itemIdentifier"][-1] for failed in answer["batchItemFailures"]], ["5"])
        self.assertEqual((self.units("acme"), self.units("globex")), ((0, 41), (0, 7)))
        self.assertEqual(self.answer("consumer", "consumer-tick.json")["errors"], 0)
        self.assertEqual(self.answer("consumer", "consumer-scan.json")["errors"], 0)

    def test_d_the_webhook_believes_what_is_signed(self):
        answer = self.answer("webhook", "webhook.json")
        self.assertEqual((answer["statusCode"], json.loads(answer["body"])), (200, {"status": "ignored"}))  # of no customer here
        answer = self.answer("webhook", "webhook.json", "--secret", "whsec_forged")
        self.assertEqual((answer["statusCode"], json.loads(answer["body"])), (400, {"error": "invalid_signature"}))
        self.assertEqual(self.answer("webhook", "webhook-welcome.json")["statusCode"], 404)

    def test_e_the_notifier_delivers(self):
        answer = self.answer("notifier", "notifier-alerts.json")
        self.assertEqual([failed["itemIdentifier"][-1] for failed in answer["batchItemFailures"]], ["3"])
        sent = json.dumps(self.page("outbox"))
        self.assertIn("You have used 80% of your included API calls", sent)
        self.assertIn("are not reported to Stripe", sent)

    def test_f_what_ends_has_sent_its_usage(self):
        self.stop(self.watch)
        wait_until(lambda: self.units("pro-customer") == (4, 4), "the ledger has what was counted", 30)


if __name__ == "__main__":
    unittest.main()
