#!/usr/bin/env python3
"""An endpoint of a push subscription: verifies each request (Standard Webhooks, v1), and acts on each message once.

    SECRET=whsec_… python3 receiver.py [PORT]
"""
import base64, hashlib, hmac, http.server, os, sys, time

KEY = base64.b64decode(os.environ["SECRET"].removeprefix("whsec_"), validate=True)
TOLERANCE = int(os.environ.get("TOLERANCE", 300))  # seconds, both ways
MAX_BODY = 2 << 20
seen = set()  # a real one remembers ids in its database, in the transaction of what it does


def is_genuine(headers, body):
    message_id, timestamp, signatures = (headers.get(f"webhook-{name}", "") for name in ["id", "timestamp", "signature"])
    if not timestamp.isdecimal() or abs(time.time() - int(timestamp)) > TOLERANCE:
        return False
    digest = hmac.new(KEY, f"{message_id}.{timestamp}.".encode() + body, hashlib.sha256).digest()
    expected = b"v1," + base64.b64encode(digest)
    return any(hmac.compare_digest(expected, signature.encode()) for signature in signatures.split(" "))


class Hook(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        length = int(self.headers.get("content-length", -1))
        if not 0 <= length <= MAX_BODY:
            return self.answer(413)
        body = self.rfile.read(length)
        if not is_genuine(self.headers, body):
            return self.answer(401)
        message_id = self.headers["webhook-id"]
        if message_id not in seen:
            sys.stdout.buffer.write(message_id.encode() + b" " + body + b"\n")
            sys.stdout.flush()
            seen.add(message_id)
        self.answer(204)

    def answer(self, status):
        self.send_response(status)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *arguments):
        pass


http.server.HTTPServer(("127.0.0.1", int(sys.argv[1]) if len(sys.argv) > 1 else 9000), Hook).serve_forever()
