"""Holds template.yaml to the code that it deploys. Run by check.sh."""

import fnmatch
import json
import pathlib
import re
import unittest

from samtranslator.yaml_helper import yaml_parse

ROOT = pathlib.Path(__file__).resolve().parents[2]
FUNCTIONS = {"authorizer": "Authorizer", "consumer": "Consumer", "webhook": "Webhook", "notifier": "Notifier"}


def read(path):
    return (ROOT / path).read_text()


TEMPLATE = yaml_parse(read("template.yaml"))
RESOURCES = TEMPLATE["Resources"]


def of_type(kind):
    return {name: resource for name, resource in RESOURCES.items() if resource["Type"] == kind}


def properties(name):
    return RESOURCES[name]["Properties"]


def code(path):
    """A Rust file without its tests."""
    return read(path).split("#[cfg(test)]")[0]


def rust(folder):
    return "\n".join(code(path) for path in (ROOT / folder).rglob("*.rs"))


def as_list(value):
    return value if isinstance(value, list) else [value]


def statements(role):
    for policy in properties(role)["Policies"]:
        for statement in policy["PolicyDocument"]["Statement"]:
            if "Fn::If" in statement:
                statement = statement["Fn::If"][1]
            yield statement


def target(resource):
    """The logical name that an ARN is of."""
    text = json.dumps(resource)
    return re.findall(r"[A-Z][A-Za-z]+(?=\.Arn|\", \"Arn|\"\])", text) or re.findall(r'"Ref": "([A-Za-z]+)"', text)


class Environment(unittest.TestCase):
    def test_every_variable_is_read_and_every_variable_read_is_set(self):
        findings = []
        for folder, logical in FUNCTIONS.items():
            config = code(f"functions/{folder}/src/config.rs")
            reads = set(re.findall(r'\b(?:need|value|read)\(\s*"([A-Z][A-Z0-9_]*)"', config))
            reads = {name for name in reads if not name.startswith("AWS_")}  # Lambda's own, and other endpoints for tests
            sets = set(properties(logical)["Environment"]["Variables"])
            findings += [f"{folder}: {name} is set and not read" for name in sets - reads]
            findings += [f"{folder}: {name} is read and not set" for name in reads - sets]
        self.assertEqual(findings, [])

    def test_no_variable_holds_a_secret(self):
        self.assertNotIn("{{resolve:", read("template.yaml"), "a resolved secret can be read in the function's configuration")
        secrets = {
            "STRIPE_SECRET_KEY": {"Ref": "StripeKeySecretArn"},
            "STRIPE_WEBHOOK_SECRETS": {"Fn::GetAtt": ["WebhookSecret", "Id"]},
            "FIRST_KEY_SECRET": {"Fn::GetAtt": ["FirstKeySecret", "Id"]},
        }
        for logical in FUNCTIONS.values():
            for name, value in properties(logical)["Environment"]["Variables"].items():
                self.assertEqual(name in secrets, value in secrets.values(), f"{logical} {name}")
                self.assertEqual(value, secrets.get(name, value))

    def test_secrets_are_fetched_by_their_arns(self):
        for folder, logical in FUNCTIONS.items():
            wanted = set(re.findall(r'Wanted::\w+\("(\w+)"\)', code(f"functions/{folder}/src/main.rs")))
            self.assertEqual(wanted, {name for name in properties(logical)["Environment"]["Variables"] if "SECRET" in name}, folder)

    def test_every_function_may_fetch_the_secrets_that_it_is_told_of(self):
        for logical in FUNCTIONS.values():
            told = {json.dumps(value) for name, value in properties(logical)["Environment"]["Variables"].items() if "SECRET" in name}
            role = properties(logical)["Role"]["Fn::GetAtt"][0]
            may = set()
            for statement in statements(role):
                if "secretsmanager:GetSecretValue" in as_list(statement["Action"]):
                    may |= {json.dumps(resource) for resource in as_list(statement["Resource"])}
            self.assertEqual(told, may, logical)


    def test_who_fetches_the_stripe_key_may_decrypt_it_under_a_key_of_ones_own_and_nothing_else(self):
        key = {"Ref": "StripeKmsKeyArn"}
        for logical in FUNCTIONS.values():
            role = properties(logical)["Role"]["Fn::GetAtt"][0]
            decrypts = [s for s in statements(role) if any(action.startswith("kms:") for action in as_list(s["Action"]))]
            fetches = "STRIPE_SECRET_KEY" in properties(logical)["Environment"]["Variables"]
            self.assertEqual([(s["Action"], s["Resource"]) for s in decrypts], [("kms:Decrypt", key)] if fetches else [], logical)
            for statement in decrypts:
                self.assertIn("kms:ViaService", statement["Condition"]["StringEquals"], logical)


class Functions(unittest.TestCase):
    def test_binaries_are_packages(self):
        for folder, logical in FUNCTIONS.items():
            self.assertEqual(properties(logical)["CodeUri"], f"functions/{folder}")
            self.assertEqual(RESOURCES[logical]["Metadata"]["BuildMethod"], "rust-cargolambda")
            package = re.search(r'^name = "(.+)"', read(f"functions/{folder}/Cargo.toml"), re.M)[1]
            self.assertEqual(RESOURCES[logical]["Metadata"]["BuildProperties"]["Binary"], package)

    def test_runtime_and_architecture(self):
        common = TEMPLATE["Globals"]["Function"]
        self.assertEqual(common["Runtime"], "provided.al2023")
        self.assertEqual(common["Architectures"], [{"Ref": "Architecture"}])
        self.assertEqual(TEMPLATE["Parameters"]["Architecture"]["Default"], "arm64")
        # Lines without a level, as metrics are, count as INFO.
        self.assertEqual(common["LoggingConfig"]["ApplicationLogLevel"], "INFO")

    def test_webhook_routes_and_patience(self):
        source = code("functions/webhook/src/lib.rs")
        events = re.search(r'const EVENTS: &str = "(.+?)"', source)[1]
        welcome = re.search(r'const WELCOME: &str = "(.+?)"', source)[1]
        routes = [route["Properties"] for route in of_type("AWS::ApiGatewayV2::Route").values()]
        self.assertEqual({route["RouteKey"] for route in routes}, {f"POST {events}", f"GET {welcome}"})
        for route in routes:
            self.assertEqual(route["Target"], {"Fn::Sub": "integrations/${WebhookIntegration}"})
        patience = int(re.search(r"PATIENCE: Duration = Duration::from_secs\((\d+)\)", source)[1])
        self.assertLess(patience, properties("Webhook")["Timeout"])
        self.assertLess(properties("Webhook")["Timeout"] * 1000, properties("WebhookIntegration")["TimeoutInMillis"])

    def test_schedules_send_what_the_consumer_knows(self):
        tasks = set(re.findall(r'task == "(\w+)"', code("functions/consumer/src/event.rs")))
        events = [event["Properties"] for event in properties("Consumer")["Events"].values() if event["Type"] == "ScheduleV2"]
        self.assertEqual({json.loads(event["Input"])["task"] for event in events}, tasks)
        self.assertIn("rate(5 minutes)", [event["ScheduleExpression"] for event in events])


class Queues(unittest.TestCase):
    def test_visibility_is_six_times_the_time_out_and_the_window(self):
        seen = 0
        for name, function in of_type("AWS::Serverless::Function").items():
            for event in function["Properties"].get("Events", {}).values():
                if event["Type"] != "SQS":
                    continue
                seen += 1
                source = event["Properties"]
                queue = properties(source["Queue"]["Fn::GetAtt"][0])
                least = 6 * function["Properties"]["Timeout"] + source.get("MaximumBatchingWindowInSeconds", 0)
                self.assertGreaterEqual(queue["VisibilityTimeout"], least, name)
                # https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-configure.html: a throttled function counts as well.
                self.assertGreaterEqual(queue["RedrivePolicy"]["maxReceiveCount"], 5, name)
                self.assertEqual(source["FunctionResponseTypes"], ["ReportBatchItemFailures"], name)
                self.assertIn("MaximumConcurrency", source["ScalingConfig"], name)
        self.assertEqual(seen, 2)
        usage = properties("Consumer")["Events"]["Usage"]["Properties"]
        self.assertEqual((usage["BatchSize"], usage["MaximumBatchingWindowInSeconds"]), (10_000, 60))

    def test_local_queues_hand_out_as_the_deployed_ones(self):
        source = code("shared/aws/src/schema.rs")
        rules = re.findall(r"const (\w+): Redelivery = Redelivery \{\s*hidden_s: (\d+),\s*receives_max: (\d+)", source)
        self.assertEqual({name for name, *_ in rules}, {"USAGE", "ALERTS"})
        for name, hidden_s, receives_max in rules:
            queue = properties({"USAGE": "UsageQueue", "ALERTS": "AlertQueue"}[name])
            self.assertEqual(queue["VisibilityTimeout"], int(hidden_s), name)
            self.assertEqual(queue["RedrivePolicy"]["maxReceiveCount"], int(receives_max), name)

    def test_every_queue_is_encrypted_and_has_dead_letters_for_fourteen_days(self):
        queues = of_type("AWS::SQS::Queue")
        dead = {queue["Properties"]["RedrivePolicy"]["deadLetterTargetArn"]["Fn::GetAtt"][0]
                for queue in queues.values() if "RedrivePolicy" in queue["Properties"]}
        self.assertEqual(len(dead) * 2, len(queues))
        for name, queue in queues.items():
            self.assertTrue(queue["Properties"]["SqsManagedSseEnabled"], name)
            if name in dead:
                self.assertEqual(queue["Properties"]["MessageRetentionPeriod"], 14 * 86_400, name)
        names = {queue["Properties"]["QueueName"]["Fn::Sub"] for queue in queues.values()}
        self.assertEqual(names, {"${AWS::StackName}-" + part for part in ("usage", "usage-dead", "alerts", "alerts-dead")})


class Tables(unittest.TestCase):
    def test_tables_are_those_of_the_code(self):
        source = code("shared/aws/src/schema.rs")
        tables = dict(re.findall(r"\(&tables\.(\w+), (Some\(\"[SN]\"\)|None)\)", source))
        self.assertEqual(set(tables), {"accounts", "counters", "ledger"})
        index = re.search(r'WORK_INDEX: &str = "(\w+)"', source)[1]
        for part, sort in tables.items():
            table = properties(part.capitalize() + "Table")
            attributes = {"pk": "S"}
            keys = [{"AttributeName": "pk", "KeyType": "HASH"}]
            if sort != "None":
                attributes["sk"] = sort[6]
                keys.append({"AttributeName": "sk", "KeyType": "RANGE"})
            if part == "ledger":
                attributes |= {"work": "S", "due": "N"}
                self.assertEqual(table["GlobalSecondaryIndexes"], [{
                    "IndexName": index,
                    "KeySchema": [{"AttributeName": "work", "KeyType": "HASH"}, {"AttributeName": "due", "KeyType": "RANGE"}],
                    "Projection": {"ProjectionType": "KEYS_ONLY"},
                }])
            else:
                self.assertNotIn("GlobalSecondaryIndexes", table)
            self.assertEqual(table["TableName"]["Fn::Sub"], "${AWS::StackName}-" + part)
            self.assertEqual({a["AttributeName"]: a["AttributeType"] for a in table["AttributeDefinitions"]}, attributes)
            self.assertEqual(table["KeySchema"], keys)

    def test_nothing_that_counts_can_be_lost(self):
        for name, resource in of_type("AWS::DynamoDB::Table").items():
            table = resource["Properties"]
            self.assertEqual(resource["DeletionPolicy"], "Retain", name)
            self.assertEqual(resource["UpdateReplacePolicy"], "Retain", name)
            self.assertEqual(table["BillingMode"], "PAY_PER_REQUEST", name)
            self.assertTrue(table["DeletionProtectionEnabled"], name)
            self.assertTrue(table["PointInTimeRecoverySpecification"]["PointInTimeRecoveryEnabled"], name)

    def test_only_accounts_expire(self):
        for part in ("counters", "ledger"):
            self.assertNotIn("TimeToLiveSpecification", properties(part.capitalize() + "Table"))
            for path in (f"shared/aws/src/{part}.rs", f"shared/core/src/{part.rstrip('s')}.rs"):
                self.assertNotIn('"ttl"', code(path), path)
        self.assertEqual(properties("AccountsTable")["TimeToLiveSpecification"], {"AttributeName": "ttl", "Enabled": True})


def expressions(path):
    """The attributes that each function's `Expression::new` names: what IAM sees of the request."""
    found = {}
    for name, body in re.findall(r"\bfn (\w+)\((.*?)(?=\n(?:pub )?(?:async )?fn |\n    (?:pub )?(?:async )?fn |\Z)", code(path), re.S):
        written = re.search(r'Expression::new\(\s*"((?:[^"\\]|\\.|\\\n)*)",\s*"((?:[^"\\]|\\.|\\\n)*)"', body)
        if not written:
            continue
        text = re.sub(r"\\\n\s*", "", " ".join(written.groups()))
        words = set(re.findall(r"(?<![:#\w])[a-z]\w*", text))
        words -= {"if_not_exists", "attribute_not_exists", "attribute_exists", "begins_with"}
        for placeholder, argument in re.findall(r'\.name\("(#\w+)", (.+?)\)\n', body):
            words.add(argument.strip('"') if argument.startswith('"') else "u1700000000.api_calls")
        found[name] = words
    return found


class Roles(unittest.TestCase):
    counters = expressions("shared/core/src/counter.rs")
    ledger = expressions("shared/core/src/ledger.rs")
    deliveries = expressions("shared/aws/src/alerts.rs")

    @classmethod
    def setUpClass(cls):
        admission = code("shared/core/src/admission.rs")
        condition = re.search(r'Expression::new\("SET ", "(.+?)"\)', admission)[1]
        prefixes = set(re.findall(r'format!\("([a-z])\{', admission))
        assert prefixes == {"u", "w", "q"}, prefixes
        added = re.search(r'pub fn with_own_minute.*?update: format!\("\{\}, (\w+) = :', code("shared/core/src/ledger.rs"), re.S)
        cls.ledger = cls.ledger | {"freeze": cls.ledger["freeze"] | {added[1]}}
        cls.counters = cls.counters | {"admit": set(re.findall(r"(?<!:)\b[a-z]\w+", condition)) | {p + "60000.1" for p in prefixes}}
        # Two writes of the ledger's table itself, which are no expressions of the rules.
        cls.ledger = cls.ledger | {"period_units": {"shard0", "kind"}}

    def may(self, role, action, table, attributes, key=None):
        keys = {"AccountsTable": {"pk", "sk"}, "CountersTable": {"pk"}, "LedgerTable": {"pk", "sk"}}[table]
        for statement in statements(role):
            if action not in as_list(statement["Action"]) or not any(table in target(r) for r in as_list(statement["Resource"])):
                continue
            condition = statement.get("Condition", {}).get("ForAllValues:StringLike", {})
            like = lambda name, values: name not in condition or all(
                any(fnmatch.fnmatchcase(value, pattern) for pattern in condition[name]) for value in values)
            if like("dynamodb:Attributes", attributes | keys) and like("dynamodb:LeadingKeys", [key] if key else []):
                return True
        return False

    def test_each_role_may_write_what_its_function_writes_and_no_more(self):
        rows = ["fold", "freeze", "close", "take", "claim", "delivered", "retry_later", "park", "finish"]
        may = {
            "AuthorizerRole": (["admit"], []),
            "ConsumerRole": (["seal", "prune"], rows + ["period_units"]),
            "WebhookRole": (["create", "bump", "seal", "prune"], rows + ["reopen"]),
            "NotifierRole": ([], []),
        }
        may_not = {
            "AuthorizerRole": (["create", "seal", "prune"], list(self.ledger)),
            "ConsumerRole": (["admit", "create", "bump"], []),
            "WebhookRole": (["admit"], ["grant", "period_units"]),
            "NotifierRole": (list(self.counters), list(self.ledger)),
        }
        for expected, table_of_roles in ((True, may), (False, may_not)):
            for role, (counters, ledger) in table_of_roles.items():
                for write in counters:
                    self.assertEqual(self.may(role, "dynamodb:UpdateItem", "CountersTable", self.counters[write]), expected, f"{role} {write}")
                for write in ledger:
                    self.assertEqual(self.may(role, "dynamodb:UpdateItem", "LedgerTable", self.ledger[write]), expected, f"{role} {write}")
        for write in ("claim", "leave"):
            self.assertTrue(self.may("NotifierRole", "dynamodb:UpdateItem", "AccountsTable", self.deliveries[write], "a#x"), write)

    def test_documents_are_written_by_those_who_own_them(self):
        document = {"epoch", "doc", "ttl"}
        for key in ("c#acme", "k#00", "s#cus_1", "e#evt_1"):
            self.assertTrue(self.may("WebhookRole", "dynamodb:PutItem", "AccountsTable", document, key), key)
        for key in ("t#1", "t", "a#x"):
            self.assertFalse(self.may("WebhookRole", "dynamodb:PutItem", "AccountsTable", document, key), key)
        self.assertFalse(self.may("NotifierRole", "dynamodb:UpdateItem", "AccountsTable", {"doc"}, "a#x"))
        self.assertFalse(self.may("NotifierRole", "dynamodb:UpdateItem", "AccountsTable", {"state"}, "c#acme"))
        self.assertFalse(self.may("NotifierRole", "dynamodb:GetItem", "AccountsTable", set(), "k#00"))
        alert = re.search(r"fn note_alert.*?condition_expression", code("shared/aws/src/ledger.rs"), re.S)[0]
        alert = set(re.findall(r'\.item\("(\w+)"', alert))
        self.assertTrue(self.may("ConsumerRole", "dynamodb:PutItem", "LedgerTable", alert, "acme#alert#quota#api_calls#pro#80"))
        self.assertFalse(self.may("ConsumerRole", "dynamodb:PutItem", "LedgerTable", alert, "acme#0#00c0ffee00c0ffee-0#api_calls"))

    def test_every_item_of_the_accounts_table_can_be_read_by_the_webhook(self):
        kinds = set(re.findall(r"^//! \| `([a-z]#?)", code("shared/aws/src/accounts.rs"), re.M))
        self.assertGreaterEqual(len(kinds), 5)
        for kind in kinds:
            key = kind + "x" if kind.endswith("#") else kind
            self.assertTrue(self.may("WebhookRole", "dynamodb:GetItem", "AccountsTable", set(), key), key)

    def test_each_role_may_ask_at_init_for_what_its_function_needs(self):
        asked = re.search(r"fn ask_to_count.*?\n    }", code("shared/aws/src/connect.rs"), re.S)[0]
        attributes = set(re.findall(r"SET (\w+)", asked))
        self.assertEqual(attributes, {"sealed"})
        for folder, logical in FUNCTIONS.items():
            main, role = code(f"functions/{folder}/src/main.rs"), f"{logical}Role"
            needs = set(re.findall(r"Need::(\w+)\(", main))
            self.assertGreaterEqual(len(needs), 2)
            if "Accounts" in needs:
                self.assertTrue(self.may(role, "dynamodb:GetItem", "AccountsTable", set(), "c#"), role)
            if "Counters" in needs:
                self.assertTrue(self.may(role, "dynamodb:UpdateItem", "CountersTable", attributes, "#"), role)
            if "Ledger" in needs:
                self.assertTrue(self.may(role, "dynamodb:GetItem", "LedgerTable", set(), "#"), role)
            for variable in re.findall(r'Need::Queue\("(\w+)"', main):
                queue = properties(logical)["Environment"]["Variables"][variable]["Ref"]
                asks = [s for s in statements(role) if "sqs:GetQueueAttributes" in as_list(s["Action"])]
                self.assertIn({"Fn::GetAtt": [queue, "Arn"]}, [s["Resource"] for s in asks], role)

    def test_no_role_deletes_or_may_do_everything(self):
        for name, role in of_type("AWS::IAM::Role").items():
            self.assertNotIn("ManagedPolicyArns", role["Properties"], name)
            for statement in statements(name):
                for action in as_list(statement["Action"]):
                    self.assertNotIn("*", action, name)
                    self.assertNotRegex(action, r"dynamodb:(Delete|Create|Batch|PartiQL|Restore)|secretsmanager:Put", name)
                for resource in as_list(statement["Resource"]):
                    self.assertNotEqual(resource, "*", name)
                if "dynamodb:UpdateItem" in as_list(statement["Action"]) or "dynamodb:PutItem" in as_list(statement["Action"]):
                    self.assertIn("dynamodb:Attributes", statement["Condition"]["ForAllValues:StringLike"], f"{name} {statement['Sid']}")

    def test_every_function_has_a_role_of_its_own_that_names_its_own_log(self):
        roles = {properties(logical)["Role"]["Fn::GetAtt"][0] for logical in FUNCTIONS.values()}
        self.assertEqual(len(roles), len(FUNCTIONS))
        for logical in FUNCTIONS.values():
            log = next(s for s in statements(f"{logical}Role") if s["Sid"] == "Log")
            self.assertEqual(log["Resource"], {"Fn::Sub": f"${{{logical}Logs.Arn}}"})
            self.assertEqual(properties(logical)["LoggingConfig"], {"LogGroup": {"Ref": f"{logical}Logs"}})
            self.assertEqual(properties(f"{logical}Logs")["RetentionInDays"], {"Ref": "LogRetentionDays"})


class Gateway(unittest.TestCase):
    document = properties("SampleApi")["DefinitionBody"]

    def test_nothing_is_cached_and_no_header_is_demanded(self):
        scheme = self.document["components"]["securitySchemes"]["farebox"]
        authorizer = scheme["x-amazon-apigateway-authorizer"]
        self.assertEqual(authorizer["authorizerResultTtlInSeconds"], 0)
        self.assertNotIn("identitySource", authorizer)
        self.assertEqual(authorizer["type"], "request")

    def test_every_route_is_behind_the_authorizer(self):
        for path, methods in self.document["paths"].items():
            for method, operation in methods.items():
                for security in operation["security"]["Fn::If"][1:]:
                    self.assertIn({"farebox": []}, security, f"{method} {path}")

    def test_refusals_are_those_of_the_local_gateway(self):
        deployed = self.document["x-amazon-apigateway-gateway-responses"]
        for kind, response in json.loads(read("infra/gateway-responses.json")).items():
            self.assertEqual(deployed[kind]["statusCode"], str(response["statusCode"]), kind)
            headers = {f"gatewayresponse.header.{name}": value for name, value in response["headers"].items()}
            content_type = headers.pop("gatewayresponse.header.Content-Type").strip("'")
            self.assertEqual(deployed[kind].get("responseParameters", {}), headers, kind)
            body = deployed[kind]["responseTemplates"][content_type]["Fn::Sub"]
            self.assertEqual(body.replace("${DocsUrl}", "{docs_url}"), response["body"], kind)

    def test_refusals_are_json_once_the_names_are_replaced(self):
        for kind, response in self.document["x-amazon-apigateway-gateway-responses"].items():
            body = response["responseTemplates"]["application/json"]["Fn::Sub"].replace("${DocsUrl}", "https://x")
            body = body.replace("$context.error.messageString", '"m"').replace("$context.authorizer.retry_after", "3")
            refusal = json.loads(re.sub(r"\$context\.authorizer\.\w+", "x", body))
            self.assertLessEqual({"code", "message", "docs_url"}, set(refusal), kind)

    def test_figures_are_those_that_the_authorizer_gives(self):
        answer = code("shared/core/src/answer.rs") + code("functions/authorizer/src/lib.rs")
        named = set(re.findall(r'\(\s*"(\w+)"', answer))
        used = set(re.findall(r"context\.authorizer\.(\w+)", json.dumps(self.document)))
        self.assertEqual(used - named, set())

    def test_the_webhook_has_no_authorizer_and_is_throttled(self):
        for name, route in of_type("AWS::ApiGatewayV2::Route").items():
            self.assertNotIn("AuthorizerId", route["Properties"], name)
        self.assertLessEqual(properties("WebhookStage")["DefaultRouteSettings"]["ThrottlingRateLimit"], 100)

    def test_the_page_that_anybody_may_ask_for_leaves_stripes_events_their_room(self):
        welcome = properties("WelcomeRoute")["RouteKey"]
        stage = properties("WebhookStage")
        self.assertEqual(list(stage["RouteSettings"]), [welcome])
        # CloudFormation makes the stage and the route in any order, and a stage that names a route before it exists is refused.
        self.assertIn("WelcomeRoute", as_list(RESOURCES["WebhookStage"]["DependsOn"]))
        for limit in ("ThrottlingRateLimit", "ThrottlingBurstLimit"):
            self.assertLessEqual(stage["RouteSettings"][welcome][limit] * 10, stage["DefaultRouteSettings"][limit])


class Watching(unittest.TestCase):
    def test_every_alarm_tells_somebody_why(self):
        alarms = of_type("AWS::CloudWatch::Alarm")
        self.assertGreaterEqual(len(alarms), 12)
        for name, alarm in alarms.items():
            self.assertEqual(alarm["Properties"]["AlarmActions"], [{"Ref": "OperatorTopic"}], name)
            self.assertGreater(len(alarm["Properties"]["AlarmDescription"]), 30, name)
            self.assertIn("TreatMissingData", alarm["Properties"], name)

    def test_every_queue_of_dead_letters_and_every_function_is_watched(self):
        text = json.dumps(of_type("AWS::CloudWatch::Alarm"))
        for dead in ("UsageDeadLetters", "AlertDeadLetters"):
            self.assertIn(f'["{dead}", "QueueName"]', text)
        for logical in FUNCTIONS.values():
            self.assertIn(f'{{"Ref": "{logical}"}}', text)

    def test_a_wrong_signing_secret_rings_and_a_single_probe_does_not(self):
        alarm = properties("RefusedEventAlarm")
        self.assertEqual((alarm["Namespace"], alarm["MetricName"], alarm["Statistic"]), ("Farebox", "events_refused", "Sum"))
        self.assertEqual(alarm["Dimensions"], [{"Name": "FunctionName", "Value": {"Ref": "Webhook"}}])
        self.assertGreater(alarm["Threshold"], 1)
        # Within an hour Stripe has sent even a lone event about three times.
        self.assertLessEqual(alarm["Threshold"], 3)
        self.assertGreaterEqual(alarm["Period"] * alarm["EvaluationPeriods"], 3_600)

    def test_whatever_is_served_and_not_billed_rings(self):
        # Where the table refuses connections or writes no other metric says so.
        watched = {(metric, logical) for namespace, metric, logical in alarmed() if namespace == "Farebox"}
        self.assertIn(("decisions_uncounted", "Authorizer"), watched)

    def test_alarms_and_dashboard_show_metrics_that_are_written(self):
        named = {(metric, logical) for namespace, metric, logical in [*alarmed(), *shown()] if namespace == "Farebox"}
        self.assertGreaterEqual(len(named), 10)
        emitted = {(metric, FUNCTIONS[folder]) for folder in FUNCTIONS for metric in written(folder)}
        self.assertEqual(named - emitted, set(), "no function writes these")

    def test_the_table_of_metrics_is_that_of_the_code(self):
        rows = re.findall(r"^\| (`.+`) \| (\w+) \| .+ \| (.*)\|$", read("infra/README.md"), re.M)
        table = {folder: set() for folder in FUNCTIONS}
        with_alarm = set()
        for names, folder, alarm in rows:
            if folder in table:
                table[folder] |= (names := set(re.findall(r"`(\w+)`", names)))
                with_alarm |= {(name, FUNCTIONS[folder]) for name in names if alarm.strip()}
        self.assertEqual(table, {folder: written(folder) for folder in FUNCTIONS})
        self.assertEqual(with_alarm, {(metric, logical) for namespace, metric, logical in alarmed() if namespace == "Farebox"})


def written(folder):
    """The metrics that a function's sources name."""
    source = rust(f"functions/{folder}/src")
    names = set(re.findall(r'\b(?:count|gauge)\(\s*"(\w+)"', source))
    for body in re.findall(r"fn metric\(.*?\n    \}", source, re.S):
        names |= set(re.findall(r'=> "(\w+)"', body))
    if folder == "authorizer":  # counts in fields, which are named where they are said
        metrics = code("functions/authorizer/src/metrics.rs")
        names |= set(re.findall(r'\("(\w+)", &self\.\w+\)', metrics)) | set(re.findall(r'\("\w+", "(\w+)"\)', metrics))
    return names


def alarmed():
    """Namespace, metric and logical name of what each alarm watches."""
    for alarm in of_type("AWS::CloudWatch::Alarm").values():
        watched = alarm["Properties"]
        yield watched["Namespace"], watched["MetricName"], watched["Dimensions"][0]["Value"].get("Ref")


def shown():
    """Namespace, metric and logical name of each line of the dashboard; there `.` and `...` repeat the line above."""
    body = re.sub(r"\$\{([\w.:]+)\}", r"\1", properties("Dashboard")["DashboardBody"]["Fn::Sub"])
    body = re.sub(r'("value": )UnreportedAgeHours', r"\g<1>1", body)
    for widget in json.loads(body)["widgets"]:
        above = []
        for line in widget["properties"]["metrics"]:
            line = [part for part in line if isinstance(part, str)]
            if line[:1] == ["..."]:
                line = above[: 4 - len(line[1:])] + line[1:]
            above = [above[i] if part == "." else part for i, part in enumerate(line)]
            yield above[0], above[1], above[3]


class Tidiness(unittest.TestCase):
    def test_what_costs_carries_tags(self):
        for kind in ("AWS::DynamoDB::Table", "AWS::SQS::Queue", "AWS::Logs::LogGroup", "AWS::Serverless::Function", "AWS::CloudWatch::Alarm",
                     "AWS::SecretsManager::Secret", "AWS::Serverless::Api", "AWS::ApiGatewayV2::Api", "AWS::SNS::Topic", "AWS::IAM::Role"):
            for name, resource in of_type(kind).items():
                tags = resource["Properties"]["Tags"]
                tags = {tag["Key"]: tag["Value"] for tag in tags} if isinstance(tags, list) else tags
                self.assertEqual(tags["Application"], "farebox", name)
                self.assertIn("Component", tags, name)
                self.assertEqual(tags["Stack"], {"Ref": "AWS::StackName"}, name)

    def test_every_parameter_says_what_is_right(self):
        page = read("infra/README.md")
        for name, parameter in TEMPLATE["Parameters"].items():
            self.assertTrue({"AllowedValues", "AllowedPattern", "MinValue"} & set(parameter), name)
            self.assertIn(name, parameter["ConstraintDescription"], name)
            self.assertTrue(parameter["Description"], name)
            self.assertIn(f"`{name}`", page, f"{name} is not in infra/README.md")
            if "Default" in parameter and "AllowedPattern" in parameter:
                self.assertRegex(str(parameter["Default"]), parameter["AllowedPattern"], name)

    def test_every_output_is_explained(self):
        page = read("infra/README.md")
        for name in TEMPLATE["Outputs"]:
            self.assertIn(f"`{name}`", page, f"{name} is not in infra/README.md")

    def test_parameters_refuse_what_is_wrong(self):
        bad = {
            "Architecture": ["arm", "ARM64", ""],
            "AuthorizerMemory": [0, 127, 3009],
            "ConsumerConcurrency": [0, 1, 51],
            "LogRetentionDays": [0, 2, 8, 3653],
            "CreateSampleApi": ["yes", "True", ""],
            "AttachedApiId": ["abc", "A1B2C3D4E5", "a1b2c3d4e5/*"],
            "ForbiddenStatus403": ["403", "TRUE", ""],
            "DocsUrl": ['https://x"', "javascript:alert(1)", "https://x\\", "https://x/$context", "https://x#a"],
            "ThrottleRate": [-1, 0, 10001],
            "ThrottleBurst": [-1, 0, 10001],
            "StripeKeySecretArn": ["sk_live_1", "arn:aws:secretsmanager:eu-central-1:1:secret:x", "arn:aws:secretsmanager:eu-central-1:123456789012:secret:stripe"],
            "StripeKmsKeyArn": ["alias/stripe", "arn:aws:kms:eu-central-1:123456789012:alias/stripe", "*"],
            "StripeBaseUrl": ["https://api.stripe.com/v1", "ftp://x"],
            "KeyBrand": ["Fare", "1a", "a-b", "", "a" * 17],
            "PortalUrl": ["javascript:alert(1)", "https://a b"],
            "OperatorEmail": ["a b@c.d", "a"],
            "MailFrom": ["a", "Acme <a@b.example>", "a@b"],
            "MailConfigurationSet": ["a b", "a/b", "a" * 65],
            # Of a report that is older than 23 hours Stripe must be asked first: by then the alarm has rung.
            "UnreportedAgeHours": [0, 1, 23],
        }
        self.assertEqual(set(bad), set(TEMPLATE["Parameters"]), "say of a new parameter what is wrong")
        for name, values in bad.items():
            for value in values:
                self.assertFalse(takes(name, value), f"{name} takes {value!r}")
        good = {
            "StripeKeySecretArn": ["arn:aws:secretsmanager:eu-central-1:123456789012:secret:farebox/stripe-AbC123"],
            "StripeKmsKeyArn": ["arn:aws:kms:eu-central-1:123456789012:key/mrk-0123456789abcdef0123456789abcdef"],
            "AttachedApiId": ["*"],
            "AuthorizerMemory": [128, 3008],
            "ConsumerConcurrency": [2, 50],
            "ThrottleRate": [1, 10000],
            "ThrottleBurst": [1, 10000],
            "UnreportedAgeHours": [2, 22],
        }
        for name, parameter in TEMPLATE["Parameters"].items():
            for value in [*good.get(name, []), *([parameter["Default"]] if "Default" in parameter else [])]:
                self.assertTrue(takes(name, value), f"{name} does not take {value!r}")


def takes(name, value):
    """Whether CloudFormation takes a parameter's value."""
    parameter = TEMPLATE["Parameters"][name]
    if "AllowedValues" in parameter:
        return value in parameter["AllowedValues"]
    if "AllowedPattern" in parameter:
        return re.search(parameter["AllowedPattern"], value) is not None
    return parameter["Type"] == "Number" and parameter["MinValue"] <= value <= parameter["MaxValue"]


if __name__ == "__main__":
    unittest.main()
