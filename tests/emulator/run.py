"""The whole of Farebox, from template.yaml and the release binaries, on an emulated AWS. README.md says what that shows."""

import argparse
import hashlib
import json
import os
import random
import re
import shutil
import signal
import sys
import threading
import time
import traceback
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from botocore.exceptions import ClientError

from cloud import FUNCTIONS, HERE, ROOT, STACK, TARGET, Cloud, Failed, ask, changed, clock_environment, wait_until
from world import DAY_S, FORMER_SECRET, HOUR_S, SEAL_DELAY_S, START_S, WEBHOOK_SECRETS, World

# template.yaml
TICK_S, VISIBILITY_S, DELIVERIES_MAX = 300, 780, 5
DENIED = 403  # ACCESS_DENIED: the emulator leaves out the gateway response that makes it a 429
THRESHOLDS = [
    *(("ada", share) for share in ("100%", "80%")),
    *((customer, share) for customer in ("bob", "cleo") for share in ("100%", "120%", "80%")),
]


def deploy(world):
    """Every resource of template.yaml that no condition leaves out is there."""
    template = (ROOT / "template.yaml").read_text()
    resources = re.findall(r"^  (\w+):\n((?:    .*\n|\n)+)", template.split("\nResources:\n")[1].split("\nOutputs:\n")[0], re.M)
    conditions = {name: re.search(r"^    Condition: (\w+)$", body, re.M) for name, body in resources}
    wanted = {name for name, found in conditions.items() if not found or found.group(1) == "HasSampleApi"}
    world.equal(f"{len(wanted)} of {len(resources)} resources", wanted - world.cloud.resources.keys(), set())


def guard(world):
    """Roles: signatures are verified and policies evaluated. A role may do what is its function's business, and no more."""
    row, item = {"pk": {"S": "x"}, "sk": {"N": "1"}}, {"pk": {"S": "x"}}
    account = {"pk": {"S": "t"}, "sk": {"S": "x"}}
    accounts, counters, ledger = (world.outputs[f"{name}TableName"] for name in ("Accounts", "Counters", "Ledger"))
    forbidden = {
        "Authorizer": [
            ("dynamodb", "put_item", {"TableName": counters, "Item": item}),
            ("dynamodb", "delete_item", {"TableName": counters, "Key": item}),
            ("dynamodb", "get_item", {"TableName": ledger, "Key": row}),
            ("dynamodb", "put_item", {"TableName": accounts, "Item": account}),
            ("secretsmanager", "get_secret_value", {"SecretId": "farebox/stripe"}),
        ],
        "Consumer": [
            ("dynamodb", "put_item", {"TableName": accounts, "Item": account}),
            ("dynamodb", "delete_item", {"TableName": ledger, "Key": row}),
            ("secretsmanager", "get_secret_value", {"SecretId": world.outputs["WebhookSecretArn"]}),
            ("sqs", "send_message", {"QueueUrl": world.outputs["UsageQueueUrl"], "MessageBody": "{}"}),
        ],
        "Webhook": [
            ("dynamodb", "delete_item", {"TableName": accounts, "Key": account}),
            ("dynamodb", "put_item", {"TableName": counters, "Item": item}),
            ("sqs", "receive_message", {"QueueUrl": world.outputs["UsageQueueUrl"]}),
        ],
        "Notifier": [
            ("dynamodb", "get_item", {"TableName": counters, "Key": item}),
            ("dynamodb", "get_item", {"TableName": ledger, "Key": row}),
            ("secretsmanager", "get_secret_value", {"SecretId": "farebox/stripe"}),
        ],
    }
    allowed = {
        "Authorizer": ("dynamodb", "get_item", {"TableName": counters, "Key": item}),
        "Consumer": ("dynamodb", "get_item", {"TableName": ledger, "Key": row}),
        "Webhook": ("dynamodb", "get_item", {"TableName": counters, "Key": item}),
        "Notifier": ("dynamodb", "get_item", {"TableName": accounts, "Key": account}),
    }
    for function, calls in forbidden.items():
        role = f"arn:aws:iam::000000000000:role/{world.cloud.resources[f'{function}Role']}"
        credentials = world.cloud.client("sts").assume_role(RoleArn=role, RoleSessionName="test")["Credentials"]

        def answer(service, call, arguments):
            try:
                getattr(world.cloud.client(service, credentials), call)(**arguments)
            except ClientError as error:
                return error.response["Error"]["Code"].removesuffix("Exception")
            return "done"

        world.equal(
            f"the {function.lower()}'s role may do one thing and is refused {len(calls)} others",
            (answer(*allowed[function]), {answer(*call) for call in calls}),
            ("done", {"AccessDenied"}),
        )


def lack(world):
    """A function whose environment names a table or a queue that is not there ends at the start and says which."""
    variables = {
        "ACCOUNTS_TABLE": world.outputs["AccountsTableName"],
        "COUNTERS_TABLE": world.outputs["CountersTableName"],
        "LEDGER_TABLE": world.outputs["LedgerTableName"],
        "USAGE_QUEUE_URL": world.outputs["UsageQueueUrl"],
        "ALERT_QUEUE_URL": world.outputs["AlertQueueUrl"],
        "KEY_BRAND": "fb",
    }
    secrets = {
        "STRIPE_SECRET_KEY": "rk_test_planted_at_the_start",
        "STRIPE_WEBHOOK_SECRETS": "whsec_planted_at_the_start",
        "FIRST_KEY_SECRET": "first-keys-planted-at-the-start-of-a-function",
    }
    books = ("ACCOUNTS_TABLE", "COUNTERS_TABLE", "LEDGER_TABLE", "ALERT_QUEUE_URL")
    needed = {
        "authorizer": ("ACCOUNTS_TABLE", "COUNTERS_TABLE", "USAGE_QUEUE_URL"),
        "consumer": books,
        "webhook": books,
        "notifier": ("ACCOUNTS_TABLE", "ALERT_QUEUE_URL"),
    }
    for function, names in needed.items():

        def lacks(name):
            gone = f"{variables[name]}-gone"
            code, said = world.cloud.begin(function, {**variables, **secrets, name: gone})
            told = [secret for secret in secrets.values() if secret in said]
            return code, f"{name} names {gone}, of which AWS says: " in said, told

        # On a machine that is busy the emulator may answer later than a function waits for it at the start.
        world.within(
            f"the {function} lacks one of {len(names)} things, names it, and no secret",
            lambda: {name: lacks(name) for name in names},
            {name: (1, True, []) for name in names},
        )


def sell(world):
    """The owner sets up the stack: secrets, tiers, customers, keys."""
    secrets = world.cloud.client("secretsmanager")
    for value in FORMER_SECRET, ",".join(WEBHOOK_SECRETS):
        secrets.put_secret_value(SecretId=world.outputs["WebhookSecretArn"], SecretString=value)
    farebox = world.cloud.farebox
    world.equal("farebox tiers apply stores catalog 1", farebox("tiers", "apply", HERE / "tiers.yaml", "--yes")["version"], 1)
    farebox("tiers", "diff", HERE / "tiers.yaml")  # exit code 0: nothing is pending
    for customer, tier in {"ada": "free", "bob": "pro", "cleo": "scale", "dora": "pro"}.items():
        added = farebox("customers", "add", customer, "--tier", tier, "--email", f"{customer}@customers.example", "--key")
        world.keys[customer] = added["key"]
    statuses = {status for _, status in world.deliver_all()}
    world.equal("the webhook takes Stripe's events about them", statuses, {200})


def refuse(world):
    """Whoever has no key for a route is refused and not counted."""
    ada = world.keys["ada"]
    bent = ada[:-1] + ("a" if ada[-1] != "a" else "b")
    world.equal("no key: 401", world.call(None), 401)
    world.equal("a mistyped key: 401", world.call(None, key=bent), 401)
    world.equal("a route outside of the tier: 401, as the template has it by default", world.call("ada", "/v1/search"), 401)
    world.equal("none of it is counted", world.counted("ada"), 0)


def serve(world):
    """Several customers of several tiers at once: each limit and quota holds to the unit."""
    search, generate = {"path": "/v1/search"}, {"path": "/v1/generate", "method": "POST", "cost": 5}
    wanted = [
        *[{"customer": "ada", "path": "/v1/basic/hello"}] * 60,
        *[{"customer": "bob", **search}] * 140,
        *[{"customer": "cleo", **search}] * 120,
        *[{"customer": "cleo", **generate}] * 40,
        *[{"customer": "dora", **generate}] * 10,
    ]
    random.Random(4).shuffle(wanted)
    statuses = world.calls(wanted)
    world.equal(
        "ada, 50 included and then blocked: 50 of 60 admitted", (statuses["ada", 200], statuses["ada", DENIED]), (50, 10)
    )
    world.equal("bob, 120 a day: 120 of 140 admitted", (statuses["bob", 200], statuses["bob", DENIED]), (120, 20))
    world.equal("cleo, two shards, 120 requests of 1 unit and 40 of 5: all admitted", statuses["cleo", 200], 160)
    world.equal("dora, 10 requests of 5 units: all admitted", statuses["dora", 200], 10)
    for customer in "ada", "bob", "cleo", "dora":
        units = world.admitted[customer]
        world.equal(f"{customer}: {units} units admitted = units in the counters", world.counted(customer), units)
    world.within("every usage message is folded", lambda: world.messages("UsageQueueUrl"), [])


def tell(world):
    """Thresholds become mails, once each; the operator has a topic."""
    world.within("each threshold is one mail in SES", world.thresholds, THRESHOLDS)
    queue, topic = world.cloud.client("sqs"), world.cloud.client("sns")
    of_topic = {"Principal": {"Service": "sns.amazonaws.com"}, "Action": "sqs:SendMessage", "Resource": "*"}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", **of_topic}]})
    url = queue.create_queue(QueueName="operator", Attributes={"Policy": policy})["QueueUrl"]
    arn = queue.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    topic.subscribe(TopicArn=world.outputs["OperatorTopicArn"], Protocol="sqs", Endpoint=arn)
    world.cloud.farebox("alerts", "test", "--operator")

    def told():
        received = queue.receive_message(QueueUrl=url, WaitTimeSeconds=1).get("Messages", [])
        return [json.loads(message["Body"])["Subject"] for message in received]

    world.within(
        "farebox alerts test --operator reaches the topic's subscribers", lambda: [s[:8] for s in told()], ["Farebox:"]
    )


def examine(world):
    """farebox doctor looks at all of it, and finds what the emulator left out of the template."""

    def errors():
        found = world.cloud.farebox("doctor", expect=1)["findings"]
        return {finding["check"] for finding in found if finding["severity"] == "error"}

    # The emulator imports neither gateway responses nor point-in-time recovery, and the test sends Stripe's events itself.
    world.equal("no backup, no 429, no endpoint at Stripe", errors(), {"table", "gateway-response", "stripe-endpoint"})
    database = world.cloud.client("dynamodb")
    for name in ("Accounts", "Counters", "Ledger"):
        recovery = {"PointInTimeRecoveryEnabled": True}
        database.update_continuous_backups(
            TableName=world.outputs[f"{name}TableName"], PointInTimeRecoverySpecification=recovery
        )
    world.equal(
        "done what it says about the tables, it is silent about them", errors(), {"gateway-response", "stripe-endpoint"}
    )


def tick(world):
    """The hour ends; the schedule of the template reports it."""
    world.move_into_next_hour()
    for customer in "ada", "bob", "cleo", "dora":
        world.agree("after the tick", customer, world.admitted[customer])
        world.equal(
            f"Stripe itself has {customer}'s {world.admitted[customer]} units",
            world.in_stripe(customer),
            world.admitted[customer],
        )


def repeat(world):
    """Messages come twice, late and in any order, with one that nobody can read among them."""
    world.consume(False)
    world.calls([{"customer": "cleo", "path": "/v1/search"}] * 30, at_once=3)
    bodies = wait_until("there are messages", lambda: [message["Body"] for message in world.messages("UsageQueueUrl")])
    poison = '{"v":1,"customer":"cleo"}'
    world.send([*bodies[::-1], poison, *bodies])
    world.consume(True)
    world.within(
        "of a batch with repeated messages only the unreadable one is left",
        lambda: [message["Body"] for message in world.messages("UsageQueueUrl")],
        [poison],
    )
    world.equal("it was not moved yet", world.messages("UsageDeadLettersUrl"), [])
    for delivery in range(1, DELIVERIES_MAX + 1):
        wait_until(f"delivery {delivery}", lambda: [m["ReceiveCount"] for m in world.messages("UsageQueueUrl")] == [delivery])
        world.move_to(world.cloud.clock.now_s() + VISIBILITY_S + 1)
    world.within(
        "after five deliveries, 780 s apart, it is a dead letter, alone",
        lambda: ([m["Body"] for m in world.messages("UsageDeadLettersUrl")], world.messages("UsageQueueUrl")),
        ([poison], []),
    )
    world.cloud.farebox("events", "replay", "--queue", "usage", expect=1)
    world.equal(
        "farebox events replay leaves it where it is", [m["Body"] for m in world.messages("UsageDeadLettersUrl")], [poison]
    )
    world.move_into_next_hour()
    world.agree("after repeated messages", "cleo", world.admitted["cleo"])


def revoke(world):
    """A revoked key opens nothing from the next request on."""
    world.equal("dora's key opens", world.call("dora"), 200)
    world.cloud.farebox("keys", "revoke", hashlib.sha256(world.keys["dora"].encode()).hexdigest())
    world.equal("revoked: the very next request is refused", world.call("dora"), 401)
    world.keys["dora"] = world.cloud.farebox("keys", "issue", "dora")["key"]
    world.equal("a new key opens", world.call("dora"), 200)


def lose(world):
    """Every message of an hour is lost: the counter still has it, and the daily scan finds it."""
    world.move_into_next_hour()
    world.agree("before messages are lost", "dora", world.admitted["dora"])
    before = world.admitted["dora"]
    world.consume(False)
    for _ in range(7):
        world.call("dora")
    world.cloud.client("sqs").purge_queue(QueueUrl=world.outputs["UsageQueueUrl"])
    world.consume(True)
    ticks = world.ticks()
    world.move_into_next_hour()
    wait_until("the schedule fires", lambda: world.ticks() > ticks)
    counted, in_ledger, in_stripe, on_its_way, difference = world.books("dora")
    world.equal(
        "all messages of an hour lost: counted, on its way, and not a difference",
        (counted, in_ledger, in_stripe, on_its_way, difference),
        (before + 7, before, before, 7, 0),
    )
    night = (world.cloud.clock.now_s() // DAY_S + 1) * DAY_S + 3 * HOUR_S + 17 * 60
    world.move_to(night + 5)
    world.within("the daily scan opens a row", lambda: world.books("dora")[1], before + 7)
    world.move_to(world.cloud.clock.now_s() + TICK_S)
    world.agree("after the daily scan", "dora", world.admitted["dora"])


def redeploy(world):
    """The stack is deployed again with another parameter: keys and counts go on."""
    before = world.counted("cleo")
    resources = world.cloud.update_stack(STACK, "AuthorizerMemory", "512")
    world.equal("nothing is replaced", resources, world.cloud.resources)
    memory = world.cloud.client("lambda").get_function_configuration(FunctionName=f"{STACK}-authorizer")["MemorySize"]
    world.equal("the authorizer has what was asked for, and the same key opens", (memory, world.call("cleo")), (512, 200))
    world.equal("the count goes on", world.counted("cleo"), before + 1)


def follow(world):
    """Stripe's events change what is let in, if they are Stripe's."""
    [event] = world.stripe("GET", "/v1/events?limit=1")["data"]
    world.equal("a wrong signature: 400", world.deliver(event, secret="whsec_another"), 400)
    world.equal("an old signature: 400", world.deliver(event, at_s=world.cloud.clock.now_s() - 301), 400)
    taken = [world.deliver(event, secret) for secret in (*WEBHOOK_SECRETS, FORMER_SECRET)]
    world.equal("any secret of now, and the one before: 200", taken, [200] * 3)
    world.equal("dora is let in", world.call("dora"), 200)
    subscription = world.cloud.farebox("customers", "show", "dora")["stripe_subscription"]
    world.stripe("DELETE", f"/v1/subscriptions/{subscription}")
    events = world.new_events()
    ended = [event["type"] for event in events if event["type"].endswith("deleted")]
    world.equal("Stripe says that dora's subscription ended", ended, ["customer.subscription.deleted"])
    world.equal("the webhook takes it", {world.deliver(event) for event in events}, {200})
    world.equal("dora's next request is refused", world.call("dora"), 401)
    shown = world.cloud.farebox("customers", "show", "dora")
    repeated = {world.deliver(event) for event in events}
    world.equal("taken again, it changes nothing", (repeated, world.cloud.farebox("customers", "show", "dora")), ({200}, shown))
    world.equal("ada is at her quota", world.call("ada"), DENIED)
    world.cloud.farebox("customers", "set-tier", "ada", "pro")
    world.equal("ada takes pro: her next request is admitted, on a route of pro", world.call("ada", "/v1/search"), 200)
    world.deliver_all()


def buy(world):
    """Somebody buys a tier on Stripe's page, and is shown a key behind it."""
    prices = {price["lookup_key"]: price["id"] for price in world.stripe("GET", "/v1/prices?limit=100")["data"]}
    of_pro = {key.rsplit("_", 1)[0]: price for key, price in prices.items() if "_pro-" in key}
    session = world.stripe(
        "POST",
        "/v1/checkout/sessions",
        {
            "mode": "subscription",
            "client_reference_id": "eve",
            "success_url": f"{world.webhook_api}/welcome?session_id={{CHECKOUT_SESSION_ID}}",
            "line_items[0][price]": of_pro["farebox_base"],
            "line_items[0][quantity]": "1",
            "line_items[1][price]": of_pro["farebox_api_calls"],
        },
    )
    # The button of the page; the answer leads to the address of success, as a browser follows it.
    status, _, body = ask(session["url"], {"email": "eve@customers.example"}, {"Accept": "application/json"})
    shown = json.loads(body)
    world.equal("the page behind Checkout shows eve's key", (status, shown.get("customer")), (200, "eve"))
    world.equal("once", ask(f"{world.webhook_api}/welcome?session_id={session['id']}")[0], 410)
    world.keys["eve"] = shown["key"]
    world.equal("it opens what pro opens", [world.call("eve", "/v1/search") for _ in range(3)], [200] * 3)
    statuses = {status for _, status in world.deliver_all()}
    world.equal("the webhook takes the events of the purchase", statuses, {200})


def attach(world):
    """The authorizer on an API of one's own, as infra/snippets/http-api.yaml has it, in front of a back end that answers."""
    asked = []

    class BackEnd(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append({name.lower(): value for name, value in self.headers.items()})
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), BackEnd)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_address[1]}/items"
    snippet = changed("infra/snippets/http-api.yaml", [("https://backend.example.com/items", address, 1)])
    _, resources = world.cloud.create_stack("paid", {"AuthorizerArn": world.outputs["AuthorizerArn"]}, TemplateBody=snippet)
    url = f"{world.cloud.url}/_aws/execute-api/{resources['Api']}/$default/v1/items"

    def call(key):
        world.requests += 1
        # In this header because the emulator takes it for the identity source where none is named.
        return ask(url, headers={"Authorization": f"Bearer {key}", "x-farebox-customer": "somebody"})[0]

    statuses = [call(world.keys["cleo"]) for _ in range(10)]
    world.admitted["cleo"] += statuses.count(200)
    world.equal("payload 2.0: ten requests with a key are let in", statuses, [200] * 10)
    world.equal("the back end is asked for each", len(asked), 10)
    refused = call(f"{world.keys['cleo'][:-1]}-")
    world.equal("a mistyped key is 403, and the back end is not asked", (refused, len(asked)), (403, 10))
    world.equal("they are counted with the others", world.counted("cleo"), world.admitted["cleo"])
    server.shutdown()


def close_month(world):
    """The billing period ends: what is counted up to its last second is on its invoice."""
    end = world.cloud.farebox("customers", "show", "bob")["cycle"]["current"]["end"]
    world.equal("the period that began on January 31 ends on February 28", time.strftime("%m-%d", time.gmtime(end)), "02-28")
    world.move_to(end - 120)
    world.calls([{"customer": customer, "path": "/v1/search"} for customer in ("ada", "bob", "cleo") for _ in range(20)])
    of_period = {customer: world.admitted[customer] for customer in ("ada", "bob", "cleo")}
    world.move_to(end + 60)
    world.calls([{"customer": "cleo", "path": "/v1/search"}] * 10)
    kinds = dict(world.deliver_all())
    world.equal("invoice.created is answered 200", kinds.get("invoice.created"), 200)
    for customer, units in of_period.items():
        world.agree("invoice.created closes the period", customer, units, "--period", "previous")
    world.move_to(end + HOUR_S + SEAL_DELAY_S + 60)
    kinds = dict(world.deliver_all())
    world.equal("the invoices are paid", kinds.get("invoice.paid"), 200)
    for customer, units in of_period.items():
        found = world.cloud.farebox("reconcile", customer, "--invoice")
        plans = [plan for one in found["customers"] for plan in one["sums"]]
        invoices = [plan["invoice"] for plan in plans]
        world.equal(
            f"{customer}'s invoice bills {units} units of {len(plans)} plan{'s' * (len(plans) > 1)}, at what the terms come to",
            (
                {one["status"] for one in invoices},
                sum(one["quantity"] for one in invoices),
                [one["amount"] for one in invoices],
                found["difference"],
                found["problems"],
            ),
            ({"paid"}, units, [one["expected_amount"] for one in invoices], 0, 0),
        )
    world.agree("the new period", "cleo", world.admitted["cleo"] - of_period["cleo"])


def account(world):
    """At the end: nothing was asked twice, nobody was forgotten."""
    invocations = sum(line.startswith("START ") for line in world.log("authorizer"))
    world.equal("TTL 0: the authorizer was asked once for each request", invocations, world.requests)
    everybody = world.cloud.farebox("reconcile")
    world.equal(
        "farebox reconcile of everybody: no difference, no problem", (everybody["difference"], everybody["problems"]), (0, 0)
    )
    entries = [json.loads(line) for name in FUNCTIONS for line in world.log(name) if '"level":' in line]
    world.equal(
        "functions complain of the wrong signatures and the unreadable message, and of nothing else",
        {entry["message"] for entry in entries if entry["level"] in ("WARN", "ERROR")},
        {"an event was not believed", "poison message"},
    )
    world.equal("no alert was sent twice, or to anybody else", world.thresholds(), THRESHOLDS)
    world.equal("no alert is a dead letter", world.messages("AlertDeadLettersUrl"), [])


def remove(world):
    """Whoever deletes the stack keeps what was counted."""
    before = world.counted("cleo")
    world.cloud.client("cloudformation").delete_stack(StackName=STACK)
    functions = world.cloud.client("lambda")
    world.within("the functions go", lambda: functions.list_functions()["Functions"], [])
    world.equal("the queues go", world.cloud.client("sqs").list_queues(QueueNamePrefix=f"{STACK}-").get("QueueUrls", []), [])
    database = world.cloud.client("dynamodb")
    tables = {name: database.describe_table(TableName=name)["Table"] for name in database.list_tables()["TableNames"]}
    wanted = {f"{STACK}-{name}": True for name in ("accounts", "counters", "ledger")}
    world.equal(
        "the tables stay, protected", {name: table["DeletionProtectionEnabled"] for name, table in tables.items()}, wanted
    )
    world.equal("with every unit", world.counted("cleo"), before)


STEPS = (
    deploy,
    guard,
    lack,
    sell,
    refuse,
    serve,
    tell,
    examine,
    tick,
    repeat,
    revoke,
    lose,
    redeploy,
    follow,
    buy,
    attach,
    close_month,
    account,
    remove,
)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("binaries", type=Path, help="the directory with the functions' binaries")
    binaries = parser.parse_args().binaries.resolve()
    folder = TARGET / "emulator-run"
    if "EMULATOR_CLOCK" not in os.environ:
        # Once more, on the clock of the test, and without anybody's credentials and proxies.
        kept = {name: os.environ[name] for name in ("PATH", "CARGO_TARGET_DIR") if name in os.environ}
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**kept, **clock_environment(folder, START_S)})
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))  # as Ctrl-C does: whatever was started is stopped
    began = time.monotonic()
    results, problem = [], None
    try:
        with Cloud(folder, binaries) as cloud:
            world = World(cloud, cloud.deploy())
            results = world.results
            for step in STEPS:
                now = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(cloud.clock.now_s()))
                print(f"\n{step.__doc__}  [{now}, {time.monotonic() - began:.0f} s]")
                step(world)
    except Failed as failed:
        problem = str(failed)
    except Exception:
        problem = traceback.format_exc()
    if not problem and all(results):
        shutil.rmtree(folder)
    else:
        print(f"\n{problem or ''}\n\nThe end of the emulator's log ({folder}):")
        log = folder / "aws.log"
        print("\n".join(log.read_text(errors="replace").splitlines()[-200:]) if log.exists() else "there is none")
    failed = results.count(False) + bool(problem)
    print(f"\n{time.monotonic() - began:.0f} s")
    print(f"{results.count(True)} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
