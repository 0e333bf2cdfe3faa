"""The emulated cloud: AWS in one process, Stripe's stand-in in another, on one clock, with the real template deployed."""

import contextlib
import json
import mmap
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
import urllib.parse
import urllib.request
import zipfile
from pathlib import Path

import boto3
from botocore.config import Config

ROOT = Path(__file__).resolve().parents[2]
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).resolve()
HERE = Path(__file__).resolve().parent
REGION = "us-east-1"
STACK = "farebox"
CAPABILITIES = ["CAPABILITY_IAM", "CAPABILITY_AUTO_EXPAND"]
STRIPE_KEY = "rk_test_emulator"
MAIL_FROM = "billing@farebox.example"
FUNCTIONS = ("authorizer", "consumer", "webhook", "notifier")
# A machine that compiles meanwhile is slow; a test that hangs must end all the same.
PATIENCE_S = 120


class Failed(Exception):
    """What the test needs is not there, or does not do what it must."""


def wait_until(what, ask, patience_s=PATIENCE_S):
    """Asks again and again, and returns the first answer that is not empty."""
    deadline = time.monotonic() + patience_s
    while True:
        if answer := ask():
            return answer
        if time.monotonic() > deadline:
            raise Failed(f"waited {patience_s} s in vain until {what}")
        time.sleep(0.1)


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def ask(url, form=None, headers=None, method=None):
    """One HTTP request: status, headers, body."""
    body = form if isinstance(form, (bytes, type(None))) else urllib.parse.urlencode(form).encode()
    request = urllib.request.Request(url, data=body, headers=headers or {}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
            return answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read()


def clock_environment(folder, start_s):
    """What a program must be started with to live on the clock of clock.c, which begins to run now."""
    folder.mkdir(parents=True, exist_ok=True)
    library, file = folder / "clock.so", folder / "clock"
    subprocess.run(["cc", "-O2", "-shared", "-fPIC", "-o", library, HERE / "clock.c", "-ldl"], check=True, timeout=PATIENCE_S)
    file.write_bytes(struct.pack("q", start_s - int(time.time())))
    return {"LD_PRELOAD": str(library), "EMULATOR_CLOCK": str(file)}


class Clock:
    """The time of everything in the test, and of the test itself: see clock.c."""

    def __init__(self):
        self.environment = {name: os.environ[name] for name in ("LD_PRELOAD", "EMULATOR_CLOCK")}
        with open(self.environment["EMULATOR_CLOCK"], "r+b") as file:
            self.page = mmap.mmap(file.fileno(), 8)
        self.followers = []

    def now_s(self):
        return int(time.time())

    def move_to(self, at_s):
        [ahead] = struct.unpack("q", self.page)
        self.page[:] = struct.pack("q", ahead + at_s - self.now_s())
        self.tell()

    def tell(self):
        """Stripe's stand-in has a clock of its own, which is told."""
        for follower in self.followers:
            follower(self.now_s())


class Cloud:
    """Starts everything, and stops it at the end of a `with`."""

    def __init__(self, folder, binaries):
        self.folder, self.binaries = folder, binaries
        self.running = contextlib.ExitStack()
        self.clock = Clock()

    def __enter__(self):
        try:
            shutil.rmtree(self.folder / "tmp", ignore_errors=True)
            (self.folder / "tmp").mkdir(parents=True)
            self.start_stripe()
            self.start_aws()
        except BaseException:
            self.running.close()
            raise
        return self

    def __exit__(self, *_):
        self.running.close()

    def start(self, name, command, environment, **options):
        log = self.running.enter_context((self.folder / f"{name}.log").open("wb"))
        # A group of its own, so that what it started ends with it.
        process = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stderr=log,
            start_new_session=True,
            cwd=self.folder,
            **{"stdout": log, **options},
        )
        self.running.callback(stop, process)
        return process

    def start_stripe(self):
        standin = TARGET / "debug/examples/serve"
        process = self.start("stripe", [standin, "0"], self.clock.environment, stdout=subprocess.PIPE)
        self.stripe_url, self.stripe_controls = (process.stdout.readline().decode().strip() for _ in range(2))
        if not self.stripe_controls:
            raise Failed(f"{standin} does not start")
        self.clock.followers.append(lambda now: ask(f"{self.stripe_controls}/_standin/clock", f"at={now}".encode()))
        self.clock.tell()

    def start_aws(self):
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        # What the functions find in their environment on Lambda, and nothing of the caller's: no key can get in here.
        self.aws_environment = {
            "PATH": os.environ["PATH"],
            "TMPDIR": str(self.folder / "tmp"),
            "HOME": str(self.folder / "tmp"),
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_REGION": REGION,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_EC2_METADATA_DISABLED": "true",
            **{f"AWS_ENDPOINT_URL_{service}": self.url for service in ("DYNAMODB", "SQS", "SECRETSMANAGER", "SESV2", "SNS")},
            **self.clock.environment,
        }
        environment = {
            **self.aws_environment,
            "BIND_HOST": "127.0.0.1",
            "GATEWAY_PORT": str(port),
            "AWS_ENDPOINT_URL": self.url,
            "STATE_DIR": str(self.folder / "tmp/state"),
            "S3_DATA_DIR": str(self.folder / "tmp/s3"),
            "PYTHONUNBUFFERED": "1",
            # It would serve both to the network.
            "AUTH": "true",
            "SFTP_ENABLED": "0",
            "IOT_MTLS_ENABLED": "0",
        }
        process = self.start("aws", [sys.executable, "-m", "ministack"], environment)

        def is_ready():
            if process.poll() is not None:
                raise Failed(f"the emulator ended with {process.returncode}")
            with contextlib.suppress(OSError):
                return ask(f"{self.url}/_ministack/health")[0] == 200

        wait_until("the emulator answers", is_ready)

    def client(self, service, credentials=None):
        """A client of the owner, to whom everything is allowed, or of whom the credentials are."""
        owner = {"AccessKeyId": "test", "SecretAccessKey": "test", "SessionToken": None}
        key, secret, session = (({**owner, **(credentials or {})})[name] for name in owner)
        return boto3.client(
            service,
            endpoint_url=self.url,
            region_name=REGION,
            aws_access_key_id=key,
            aws_secret_access_key=secret,
            aws_session_token=session,
            config=Config(retries={"total_max_attempts": 1}, read_timeout=PATIENCE_S),
        )

    def farebox(self, *arguments, expect=0):
        """Runs the real command as an owner would, on the deployed stack."""
        environment = {
            **self.aws_environment,
            "AWS_ENDPOINT_URL": self.url,
            "FAREBOX_STACK": STACK,
            "STRIPE_SECRET_KEY": STRIPE_KEY,
            "STRIPE_BASE_URL": self.stripe_url,
        }
        self.clock.tell()
        done = subprocess.run(
            [TARGET / "debug/farebox", *arguments, "--json"],
            env=environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
        )
        if done.returncode != expect:
            raise Failed(f"farebox {' '.join(map(str, arguments))}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
        return json.loads(done.stdout)

    def begin(self, function, variables):
        """Starts a function where nobody has events for it, so that it ends in any case: its exit code, and what it said."""
        environment = {
            **self.aws_environment,
            "AWS_LAMBDA_RUNTIME_API": "127.0.0.1:9",
            "AWS_LAMBDA_FUNCTION_NAME": function,
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "256",
            "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
            **variables,
        }
        binary = self.binaries / f"farebox-{function}"
        done = subprocess.run([binary], env=environment, capture_output=True, text=True, timeout=PATIENCE_S)
        return done.returncode, done.stdout + done.stderr

    def deploy(self):
        """Deploys template.yaml with what `sam deploy` would upload, and the secrets that the owner makes."""
        storage = self.client("s3")
        storage.create_bucket(Bucket="deployment")
        for function in FUNCTIONS:
            storage.upload_file(self.package(function), "deployment", f"{function}.zip")
        storage.put_object(Bucket="deployment", Key="template.yaml", Body=changed("template.yaml", CHANGES).encode())
        secrets = self.client("secretsmanager")
        stripe_key = secrets.create_secret(Name="farebox/stripe", SecretString=STRIPE_KEY)
        self.client("sesv2").create_email_identity(EmailIdentity=MAIL_FROM)
        parameters = {
            "Architecture": "x86_64",
            "StripeKeySecretArn": stripe_key["ARN"],
            "StripeBaseUrl": self.stripe_url,
            "MailFrom": MAIL_FROM,
            "PortalUrl": "https://portal.farebox.example",
        }
        outputs, self.resources = self.create_stack(STACK, parameters, TemplateURL=f"{self.url}/deployment/template.yaml")
        return outputs

    def package(self, function):
        """The package of a function: its binary, as Lambda gets it."""
        binary = self.binaries / f"farebox-{function}"
        if not binary.exists():
            raise Failed(f"{binary} is not built; without --only-run this script builds it")
        content = {"bootstrap": binary.read_bytes()}
        if function == "authorizer":
            shim = (HERE / "bootstrap.py").read_text().replace("PYTHON", sys.executable, 1)
            content = {"bootstrap": shim.encode(), "function": content["bootstrap"]}
        path = self.folder / f"{function}.zip"
        with zipfile.ZipFile(path, "w") as archive:
            for name, bytes_ in content.items():
                entry = zipfile.ZipInfo(name)
                entry.external_attr = 0o755 << 16
                archive.writestr(entry, bytes_)
        return str(path)

    def create_stack(self, name, parameters, **template):
        """Creates a stack: its outputs, and the names of its resources."""
        formation = self.client("cloudformation")
        given = [{"ParameterKey": key, "ParameterValue": value} for key, value in parameters.items()]
        formation.create_stack(StackName=name, Parameters=given, Capabilities=CAPABILITIES, **template)
        stack = self.settled(name, "CREATE_COMPLETE")
        return {output["OutputKey"]: output["OutputValue"] for output in stack.get("Outputs", [])}, self.resources_of(name)

    def update_stack(self, name, parameter, value):
        """Deploys a stack with another value of one parameter: the names of its resources."""
        formation = self.client("cloudformation")
        parameters = formation.describe_stacks(StackName=name)["Stacks"][0]["Parameters"]
        kept = [{"ParameterKey": one["ParameterKey"], "UsePreviousValue": True} for one in parameters]
        given = [one for one in kept if one["ParameterKey"] != parameter] + [
            {"ParameterKey": parameter, "ParameterValue": value}
        ]
        formation.update_stack(StackName=name, Parameters=given, Capabilities=CAPABILITIES, UsePreviousTemplate=True)
        self.settled(name, "UPDATE_COMPLETE")
        return self.resources_of(name)

    def settled(self, name, wanted):
        """The stack once nothing is done to it any more."""
        formation = self.client("cloudformation")

        def look():
            stack = formation.describe_stacks(StackName=name)["Stacks"][0]
            return not stack["StackStatus"].endswith("IN_PROGRESS") and stack

        stack = wait_until(f"stack {name} is settled", look)
        if stack["StackStatus"] != wanted:
            events = formation.describe_stack_events(StackName=name)["StackEvents"]
            failed = [event for event in events if "FAILED" in event["ResourceStatus"]]
            reasons = (f"{event['LogicalResourceId']}: {event.get('ResourceStatusReason')}" for event in failed)
            raise Failed("\n".join([f"stack {name} is {stack['StackStatus']}: {stack.get('StackStatusReason')}", *reasons]))
        return stack

    def resources_of(self, name):
        resources = self.client("cloudformation").describe_stack_resources(StackName=name)["StackResources"]
        return {resource["LogicalResourceId"]: resource["PhysicalResourceId"] for resource in resources}


def stop(process):
    """Ends a process, and whatever it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        pass
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


# What is put in place of what in template.yaml, how often, and why. Nothing else differs from what is deployed to AWS.
CHANGES = (
    # `sam package` does this, too.
    *((f"CodeUri: functions/{name}\n", f"CodeUri: s3://deployment/{name}.zip\n", 1) for name in FUNCTIONS),
    # The emulator wants a number and gets the text of a parameter, which CloudFormation converts.
    ("MaximumConcurrency: !Ref ConsumerConcurrency", "MaximumConcurrency: 2", 1),
    # The queues refuse whoever comes without TLS, as everybody comes to the emulator.
    ("{Bool: {aws:SecureTransport: 'false'}}", "{Bool: {aws:SecureTransport: 'neither'}}", 1),
    # The emulator takes a batch for an action of its own. On AWS who may do one may do many:
    # https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_AddPermission.html
    ("Action: [sqs:SendMessage, ", "Action: [sqs:SendMessage, sqs:SendMessageBatch, ", 3),
    # The emulator knows neither of which identity nor from which address a mail is to be sent when it asks the policy.
    ("- !Sub arn:${AWS::Partition}:ses:${AWS::Region}:${AWS::AccountId}:identity/*", "- '*'", 1),
    ("{StringEquals: {ses:FromAddress: !Ref MailFrom}}", "{StringEqualsIfExists: {ses:FromAddress: !Ref MailFrom}}", 1),
)


def changed(path, changes):
    """A template of the project with changes, each of which must be possible."""
    template = (ROOT / path).read_text()
    for old, new, times in changes:
        if template.count(old) != times:
            raise Failed(f"{path} has {old.strip()!r} {template.count(old)} times, not {times}")
        template = template.replace(old, new)
    return template
