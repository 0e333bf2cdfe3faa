"""Checks the snippets that users copy, and the event files. Run by check.sh."""

import asyncio
import importlib.util
import json
import pathlib
import re
import subprocess
import sys
import unittest
import zlib

import hcl2
from openapi_spec_validator import validate
from samtranslator.yaml_helper import yaml_parse

ROOT = pathlib.Path(__file__).resolve().parents[2]
SNIPPETS = ROOT / "infra/snippets"
EVENTS = ROOT / "events"
RESPONSES = json.loads((ROOT / "infra/gateway-responses.json").read_text())
FIGURES = {
    "limit": "100", "remaining": "99", "reset": "1795435260", "ratelimit": '"per60s";r=99;t=60',
    "ratelimit_policy": '"per60s";q=100;w=60', "quota_limit": "50000", "quota_used": "40041", "quota_reset": "1797163200",
    "cost": "1", "customer": "acme",
}



def entries():
    """The entries of the context that the tower layer reads from request headers, and what each becomes on the answer."""
    figures = (ROOT / "infra/tower/src/figures.rs").read_text()
    table = re.findall(r'entry\(\s*"(\w+)",\s*"([\w-]+)",\s*"([\w-]+)"', figures)
    caller = re.findall(r'lookup\("(\w+)", "([\w-]+)"\)', figures)
    return dict(caller) | {name: header for name, header, _ in table}, {name: answer for name, _, answer in table}


REQUEST, ANSWER = entries()


def module(name):
    spec = importlib.util.spec_from_file_location(name, SNIPPETS / f"{name}.py")
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def rest_event(headers=None):
    event = json.loads((EVENTS / "authorizer-rest.json").read_text())
    event["requestContext"]["authorizer"] = dict(FIGURES, principalId="p")
    return event | {"body": None, "isBase64Encoded": False, "headers": (sent := {"Host": "x", **(headers or {})}),
                    "multiValueHeaders": {name: [value] for name, value in sent.items()}}


def http_event():
    event = json.loads((EVENTS / "authorizer-http.json").read_text())
    event["requestContext"]["authorizer"] = {"lambda": FIGURES}
    return event | {"body": None, "isBase64Encoded": False}


class Attaching(unittest.TestCase):
    def test_sam(self):
        resources = yaml_parse((SNIPPETS / "sam.yaml").read_text())["Resources"]
        api = resources["Api"]["Properties"]
        self.assertEqual(api["Auth"]["Authorizers"]["Farebox"]["Identity"], {"ReauthorizeEvery": 0})
        for kind in ("UNAUTHORIZED", "ACCESS_DENIED"):
            response = api["GatewayResponses"][kind]
            self.assertEqual(response["StatusCode"], RESPONSES[kind]["statusCode"])
            self.same_headers(kind, response["ResponseParameters"]["Headers"])
            self.same_body(kind, response["ResponseTemplates"]["application/json"]["Fn::Sub"], "${DocsUrl}")

    def test_http_api(self):
        resources = yaml_parse((SNIPPETS / "http-api.yaml").read_text())["Resources"]
        authorizer = resources["Farebox"]["Properties"]
        self.assertEqual(authorizer["AuthorizerResultTtlInSeconds"], 0)
        self.assertNotIn("IdentitySource", authorizer)
        self.assertEqual((authorizer["AuthorizerPayloadFormatVersion"], authorizer["EnableSimpleResponses"]), ("2.0", True))
        integration = resources["Integration"]["Properties"]
        asked = {name.removeprefix("overwrite:header."): value for name, value in integration["RequestParameters"].items()}
        self.assert_maps_every(REQUEST, asked, "$context.authorizer.")
        answered = integration["ResponseParameters"]["200"]["ResponseParameters"]
        answered = {mapping["Destination"].removeprefix("overwrite:header."): mapping["Source"] for mapping in answered}
        self.assert_maps_every(ANSWER, answered, "$context.authorizer.")

    def test_openapi(self):
        document = yaml_parse((SNIPPETS / "openapi.yaml").read_text())
        document = json.loads(json.dumps(document))
        validate(document)
        authorizer = document["components"]["securitySchemes"]["farebox"]["x-amazon-apigateway-authorizer"]
        self.assertEqual(authorizer["authorizerResultTtlInSeconds"], 0)
        self.assertNotIn("identitySource", authorizer)
        responses = document["x-amazon-apigateway-gateway-responses"]
        for kind in ("UNAUTHORIZED", "ACCESS_DENIED"):
            headers = {name.removeprefix("gatewayresponse.header."): value for name, value in responses[kind]["responseParameters"].items()}
            self.same_headers(kind, headers)
            self.same_body(kind, responses[kind]["responseTemplates"]["application/json"], "https://example.com/docs/errors")
        for methods in document["paths"].values():
            for operation in methods.values():
                integration = operation["x-amazon-apigateway-integration"]
                mapped = {name.split(".")[-1] for response in integration.get("responses", {}).values() for name in response["responseParameters"]}
                declared = set(operation["responses"]["200"].get("headers", {}))
                self.assertEqual(mapped, declared)
                asked = {name.removeprefix("integration.request.header."): value for name, value in integration["requestParameters"].items()}
                if integration["type"] == "http_proxy":  # a non-proxy integration passes on nothing else
                    self.assert_maps_every(REQUEST, asked, "context.authorizer.")
                for answered in integration.get("responses", {}).values():
                    answered = answered["responseParameters"].items()
                    answered = {name.removeprefix("method.response.header."): value for name, value in answered}
                    self.assert_maps_every(ANSWER, answered, "context.authorizer.")

    def test_terraform(self):
        text = (SNIPPETS / "terraform.tf").read_text()
        document = hcl2.loads(text)
        resources = {}
        for block in document["resource"]:
            for kind, named in block.items():
                for name, resource in named.items():
                    resources[kind.strip('"'), name.strip('"')] = resource
        for kind in ("aws_api_gateway_authorizer", "aws_apigatewayv2_authorizer"):
            self.assertEqual(resources[kind, "farebox"]["authorizer_result_ttl_in_seconds"], 0)
        source = resources["aws_api_gateway_authorizer", "farebox"]["identity_source"]
        self.assertEqual(source.strip('"'), "context.identity.sourceIp")  # not a header: there are two that a key may come in
        items = resources["aws_apigatewayv2_integration", "items"]
        unquoted = lambda mapping: {name.strip('"').removeprefix("overwrite:header."): value.strip('"') for name, value in mapping.items()}
        self.assert_maps_every(REQUEST, unquoted(items["request_parameters"]), "$context.authorizer.")
        self.assert_maps_every(ANSWER, unquoted(items["response_parameters"][0]["mappings"]), "$context.authorizer.")
        plain = text.replace('\\"', '"')
        for kind in ("UNAUTHORIZED", "ACCESS_DENIED"):
            self.assertIn(RESPONSES[kind]["body"].replace("{docs_url}", "${var.docs_url}"), plain)
            for name, value in RESPONSES[kind]["headers"].items():
                if name != "Content-Type":
                    self.assertRegex(plain, rf'"gatewayresponse\.header\.{name}" += "{re.escape(value)}"')

    def test_cdk_has_the_same_refusals(self):
        text = (SNIPPETS / "cdk.ts").read_text()
        for kind in ("UNAUTHORIZED", "ACCESS_DENIED"):
            self.assertIn(RESPONSES[kind]["body"].replace("{docs_url}", "${docsUrl}"), text)
            for name, value in RESPONSES[kind]["headers"].items():
                if value.startswith("context."):
                    self.assertRegex(text, rf"'?{name}'?: '{value.removeprefix('context.authorizer.')}'")

    def assert_maps_every(self, entries, mapped, context):
        """What is not mapped is what the caller sent."""
        mapped = {header.lower(): value for header, value in mapped.items()}
        self.assertEqual(mapped, {header: context + name for name, header in entries.items()})

    def same_headers(self, kind, headers):
        expected = {name: value for name, value in RESPONSES[kind]["headers"].items() if name != "Content-Type"}
        self.assertEqual(headers, expected, kind)

    def same_body(self, kind, body, docs_url):
        self.assertEqual(body.replace(docs_url, "{docs_url}"), RESPONSES[kind]["body"], kind)


class Figures(unittest.TestCase):
    def assert_figures(self, headers):
        headers = {name.lower(): value for name, value in dict(headers).items()}
        self.assertEqual(headers["x-ratelimit-limit"], "100")
        self.assertEqual(headers["ratelimit"], FIGURES["ratelimit"])
        self.assertEqual(headers["ratelimit-policy"], FIGURES["ratelimit_policy"])
        self.assertEqual(headers["x-quota-used"], "40041")
        self.assertEqual(headers["x-farebox-cost"], "1")
        self.assertNotIn("x-ratelimit-warning", headers)

    def assert_answer(self, handler):
        forged = {"x-farebox-limit": "1000000", "x-farebox-warning": "forged"}
        for event in (rest_event(), http_event(), rest_event(forged)):
            answer = handler(event, None)
            self.assertEqual(answer["statusCode"], 200, answer)
            single = {name: values[-1] for name, values in (answer.get("multiValueHeaders") or {}).items()}
            self.assert_figures(single | (answer.get("headers") or {}))

    def mapped(self):
        return {"x-farebox-" + name.replace("_", "-"): value for name, value in FIGURES.items()}

    def test_flask(self):
        from apig_wsgi import make_lambda_handler
        from flask import Flask

        app = Flask("paid")
        app.after_request(module("flask_headers").farebox_headers)
        app.get("/v1/items")(lambda: {})
        handler = make_lambda_handler(app)
        self.assert_answer(handler)
        self.assert_figures(app.test_client().get("/v1/items", headers=self.mapped()).headers)

    def test_fastapi(self):
        from fastapi import FastAPI
        from fastapi.testclient import TestClient
        from mangum import Mangum

        app = FastAPI()
        app.middleware("http")(module("fastapi_headers").farebox_headers)
        app.get("/v1/items")(lambda: {})
        asyncio.set_event_loop(asyncio.new_event_loop())
        self.addCleanup(lambda: asyncio.get_event_loop().close())
        handler = Mangum(app, lifespan="off")
        self.assert_answer(handler)
        self.assert_figures(TestClient(app).get("/v1/items", headers=self.mapped()).headers)

    def test_all_snippets_and_the_local_gateway_name_the_same_headers(self):
        gateway = (ROOT / "infra/local/src/gateway.rs").read_text()
        table = dict(re.findall(r'\("(\w+)", "(X-[\w-]+|RateLimit[\w-]*)"\)', gateway))
        self.assertGreaterEqual(len(table), 10)
        self.assertEqual(module("flask_headers").HEADERS, table)
        self.assertEqual(module("fastapi_headers").HEADERS, table)
        self.assertEqual(dict(re.findall(r"(\w+): '(X-[\w-]+|RateLimit[\w-]*)'", (SNIPPETS / "express.mjs").read_text())), table)


class Events(unittest.TestCase):
    def test_every_function_has_an_event_and_every_event_is_json(self):
        functions = {path.name for path in (ROOT / "functions").iterdir() if (path / "src/main.rs").exists()}
        events = {path.name.split("-")[0].removesuffix(".json") for path in EVENTS.glob("*.json")}
        self.assertLessEqual(events, functions | {"webhook"})
        for path in EVENTS.glob("*.json"):
            json.loads(path.read_text())

    def test_the_key_is_well_formed(self):
        digits = re.search(r'BASE62: &\[u8; 62\] = b"(\w+)"', (ROOT / "shared/core/src/key.rs").read_text())[1]
        keys = set(re.findall(r"farebox_test_\w+", (EVENTS / "authorizer-rest.json").read_text()))
        keys |= set(re.findall(r"farebox_test_\w+", (EVENTS / "authorizer-http.json").read_text()))
        self.assertEqual(len(keys), 1)
        body, checksum = (key := keys.pop())[:-6], key[-6:]
        number = 0
        for digit in checksum:
            number = number * 62 + digits.index(digit)
        self.assertEqual(number, zlib.crc32(body.encode()))

    def test_times_can_be_moved_to_now(self):
        for path in EVENTS.glob("*.json"):
            moved = subprocess.run([sys.executable, EVENTS / "now.py", path.name], capture_output=True, text=True, check=True)
            self.assertEqual(set(json.loads(moved.stdout)), set(json.loads(path.read_text())))


if __name__ == "__main__":
    unittest.main()
