#!/usr/bin/env python3
"""Prints an event with its times moved to now, because old usage is dropped and old signatures are refused.

    python3 events/now.py consumer-usage.json > target/event.json
    python3 events/now.py webhook.json > target/event.json
    python3 events/now.py authorizer-rest.json --key KEY > target/event.json
"""
import argparse
import hashlib
import hmac
import json
import pathlib
import time


def usage(event, now):
    bucket = now - now % 3600
    for record in event["Records"]:
        try:
            body = json.loads(record["body"])
        except ValueError:
            continue  # the poison message stays one
        if "bucket" not in body:
            continue
        body["at"] += (bucket - body["bucket"]) * 1000
        body["period"] += bucket - body["bucket"]
        body["bucket"], body["bucket_end"] = bucket, bucket + 3600
        record["body"] = json.dumps(body, separators=(",", ":"))
        record["md5OfBody"] = hashlib.md5(record["body"].encode()).hexdigest()


def webhook(event, now, secret):
    signature = hmac.new(secret.encode(), f"{now}.{event['body']}".encode(), hashlib.sha256).hexdigest()
    event["headers"]["stripe-signature"] = f"t={now},v1={signature}"


def authorizer(event, key):
    headers = event["headers"]
    if "x-api-key" in headers:
        headers["x-api-key"] = key
    else:
        headers["authorization"] = f"Bearer {key}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("event", help="a file beside this one")
    parser.add_argument("--secret", default="whsec_local", help="what a webhook is signed with; that of farebox dev unless told otherwise")
    parser.add_argument("--key", help="the API key that an authorizer event carries")
    asked = parser.parse_args()
    event = json.loads((pathlib.Path(__file__).parent / asked.event).read_text())
    now = int(time.time())
    if "Records" in event:
        usage(event, now)
    elif "stripe-signature" in event.get("headers", {}):
        webhook(event, now, asked.secret)
    elif asked.key and "headers" in event:
        authorizer(event, asked.key)
    print(json.dumps(event, indent=2))


if __name__ == "__main__":
    main()
