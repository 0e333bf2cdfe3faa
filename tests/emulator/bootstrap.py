#!PYTHON -IS
"""Starts a function that has an internal extension on an emulator without the Extensions API.

Put into the package as `bootstrap`, with the real binary as `function` beside it. It becomes that binary, after forking a proxy
of the Runtime API that adds the two calls an extension makes. As on Lambda, the next invocation is handed out only when the
function and its extension have both asked for it. Nothing is ever frozen.

https://docs.aws.amazon.com/lambda/latest/dg/runtimes-extensions-api.html
"""

import ctypes
import http.client
import json
import os
import signal
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

API = os.environ["AWS_LAMBDA_RUNTIME_API"]
PR_SET_PDEATHSIG = 1

asked = threading.Semaphore(0)  # the extension waits for an invocation
begun = threading.Semaphore(0)  # an invocation was handed out, and the extension is to hear of it


class Proxy(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self):
        if self.path.endswith("/extension/event/next"):
            asked.release()
            begun.acquire()
            self.answer(200, {}, json.dumps({"eventType": "INVOKE"}).encode())
        else:
            is_next = self.path.endswith("/invocation/next")
            if is_next:
                asked.acquire()
            answer = self.forward()
            if is_next:
                begun.release()
            self.answer(*answer)

    def do_POST(self):
        if self.path.endswith("/extension/register"):
            self.body()
            self.answer(200, {"Lambda-Extension-Identifier": "only"}, b"{}")
        else:
            self.answer(*self.forward())

    def body(self):
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def forward(self):
        upstream = http.client.HTTPConnection(API)
        upstream.request(self.command, self.path, self.body())
        answer = upstream.getresponse()
        headers = {name: value for name, value in answer.getheaders() if name.startswith("Lambda-")}
        body = answer.read()
        upstream.close()
        return answer.status, headers, body

    def answer(self, status, headers, body):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def main():
    proxy = ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
    function = os.path.join(os.path.dirname(os.path.abspath(__file__)), "function")
    if os.fork() == 0:
        # It ends with the function, and holds none of its output open.
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        nowhere = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(nowhere, stream)
        proxy.serve_forever()
    os.environ["AWS_LAMBDA_RUNTIME_API"] = "127.0.0.1:%d" % proxy.server_address[1]
    os.execv(function, [function])


main()
