"""What the test sees of the emulated cloud, what it does as caller and as Stripe, and what it asserted."""

import calendar
import collections
import hashlib
import hmac
import json
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor

from cloud import MAIL_FROM, STACK, STRIPE_KEY, Failed, ask

# A customer who subscribes on the 31st: the next period begins on the last day of a shorter month.
START_S = calendar.timegm((2027, 1, 31, 10, 17, 23))
HOUR_S, DAY_S = 3_600, 86_400
SEAL_DELAY_S = 300  # shared/core/src/ledger.rs
# What was put into the webhook's secret at first, and what then: one for each of the two endpoints at Stripe.
FORMER_SECRET, WEBHOOK_SECRETS = "whsec_former", ("whsec_snapshot", "whsec_thin")


class World:
    """The cloud as the test looks at it, and what was asserted."""

    def __init__(self, cloud, outputs):
        self.cloud, self.outputs = cloud, outputs
        self.api = f"{cloud.url}/_aws/execute-api/{cloud.resources['SampleApi']}/live"
        self.webhook_api = f"{cloud.url}/_aws/execute-api/{cloud.resources['WebhookApi']}/$default"
        self.keys = {}
        self.admitted = collections.Counter()  # units by customer
        self.requests = 0
        self.newest_event = None
        self.results = []
        self.lock = threading.Lock()

    # ---- What was asserted

    def equal(self, what, found, wanted):
        holds = found == wanted
        self.results.append(holds)
        print(f"ok    {what}" if holds else f"FAIL  {what}\n      found  {found}\n      wanted {wanted}", flush=True)

    def within(self, what, look, wanted, patience_s=60):
        """Equal before long."""
        deadline = time.monotonic() + patience_s
        while (found := look()) != wanted and time.monotonic() < deadline:
            time.sleep(0.2)
        self.equal(what, found, wanted)

    # ---- Callers

    def call(self, customer, path="/v1/basic/hello", method="GET", cost=1, key=None):
        """One request through the REST API: its status. What is admitted is written down."""
        key = key or self.keys.get(customer)
        status, _, _ = ask(f"{self.api}{path}", headers={"x-api-key": key} if key else {}, method=method)
        with self.lock:
            self.requests += 1
            self.admitted[customer] += cost if status == 200 else 0
        return status

    def calls(self, wanted, at_once=6):
        """Many requests, some at once: how often each customer got each status."""
        with ThreadPoolExecutor(at_once) as pool:
            statuses = pool.map(lambda request: (request["customer"], self.call(**request)), wanted)
            return collections.Counter(statuses)

    # ---- Time

    def move_to(self, at_s):
        self.cloud.clock.move_to(at_s)

    def move_into_next_hour(self):
        """To when the buckets of this hour are due, and the schedule fires."""
        hour = self.cloud.clock.now_s() // HOUR_S * HOUR_S
        self.move_to(hour + HOUR_S + SEAL_DELAY_S + 60)

    # ---- Counter, ledger, Stripe

    def counted(self, customer):
        """Units of the present billing period, as the counters have them."""
        return sum(line["units"] for line in self.cloud.farebox("usage", "show", customer)["meters"])

    def books(self, customer, *options):
        """Counter, ledger and Stripe of a customer, as `farebox reconcile` finds them: (counted, in ledger, in Stripe, on its
        way, difference)."""
        found = self.cloud.farebox("reconcile", customer, *options)
        sums = [one for customer in found["customers"] for one in customer["sums"]]
        total = [sum(one[name] for one in sums) for name in ("counted", "units", "in_stripe")]
        return (*total, found["pending"], found["difference"])

    def agree(self, when, customer, units, *options):
        self.within(
            f"{when}: {customer}'s {units} admitted units = counter = ledger = Stripe",
            lambda: self.books(customer, *options),
            (units, units, units, 0, 0),
        )

    def in_stripe(self, customer):
        """Units that Stripe has of a customer in all, without asking Farebox."""
        in_stripe = self.cloud.farebox("customers", "show", customer)["stripe_customer"]
        until = self.cloud.clock.now_s() // 60 * 60 + 60
        of_customer = f"customer={in_stripe}&start_time={START_S // 60 * 60}&end_time={until}"
        meters = self.stripe("GET", "/v1/billing/meters?limit=100")["data"]
        pages = (self.stripe("GET", f"/v1/billing/meters/{meter['id']}/event_summaries?{of_customer}") for meter in meters)
        return sum(int(summary["aggregated_value"]) for page in pages for summary in page["data"])

    def ticks(self):
        """How often the consumer's schedule has worked on what was due."""
        return sum('"message":"reported"' in line for line in self.log("consumer"))

    # ---- Queues

    def messages(self, output):
        """What lies in a queue, seen or not; looking changes nothing."""
        name = self.outputs[output].rsplit("/", 1)[1]
        queues = json.loads(ask(f"{self.cloud.url}/_ministack/sqs/messages")[2])["messages"]
        by_url = {url: found for regions in queues.values() for urls in regions.values() for url, found in urls.items()}
        [found] = [found for url, found in by_url.items() if url.endswith(f"/{name}")]
        return found

    def consume(self, enabled):
        """Whether the consumer reads the usage queue."""
        functions = self.cloud.client("lambda")
        functions.update_event_source_mapping(UUID=self.cloud.resources["ConsumerUsage"], Enabled=enabled)

    def send(self, bodies):
        queue = self.cloud.client("sqs")
        for body in bodies:
            queue.send_message(QueueUrl=self.outputs["UsageQueueUrl"], MessageBody=body)

    # ---- Mails

    def thresholds(self):
        """Who was mailed about which threshold."""
        sent = json.loads(ask(f"{self.cloud.url}/_ministack/ses/messages")[2])["messages"]
        mails = [mail for mails in sent.values() for mail in mails if mail["Source"] == MAIL_FROM]
        shares = ((mail["To"][0].split("@")[0], re.search(r"\d+%", mail["Subject"])) for mail in mails)
        return sorted((customer, share.group()) for customer, share in shares if share)

    # ---- Stripe's events

    def stripe(self, method, path, form=None):
        status, _, body = ask(f"{self.cloud.stripe_url}{path}", form, {"Authorization": f"Bearer {STRIPE_KEY}"}, method)
        if status != 200:
            raise Failed(f"Stripe's stand-in answers {method} {path} with {status}: {body.decode()}")
        return json.loads(body)

    def new_events(self):
        """What happened in Stripe since this was asked last, oldest first."""
        after = f"&ending_before={self.newest_event}" if self.newest_event else ""
        page = self.stripe("GET", f"/v1/events?limit=100{after}")
        if page["has_more"]:
            raise Failed("more events at once than one page has")
        events = page["data"]
        if events:
            self.newest_event = events[0]["id"]
        return events[::-1]

    def deliver(self, event, secret=WEBHOOK_SECRETS[0], at_s=None):
        """One event to the webhook, signed as Stripe does (https://docs.stripe.com/webhooks#verify-manually): its status."""
        body = json.dumps(event).encode()
        at_s = at_s or self.cloud.clock.now_s()
        signature = hmac.new(secret.encode(), f"{at_s}.".encode() + body, hashlib.sha256).hexdigest()
        headers = {"Stripe-Signature": f"t={at_s},v1={signature}", "Content-Type": "application/json"}
        return ask(f"{self.webhook_api}/stripe/webhook", body, headers)[0]

    def deliver_all(self):
        """All that happened: the kinds and statuses. Events cause others."""
        delivered = []
        while events := self.new_events():
            delivered += [(event["type"], self.deliver(event)) for event in events]
        return delivered

    # ---- Logs

    def log(self, function):
        pages = self.cloud.client("logs").get_paginator("filter_log_events")
        lines = pages.paginate(logGroupName=f"/aws/lambda/{STACK}-{function}")
        return [event["message"] for page in lines for event in page["events"]]
