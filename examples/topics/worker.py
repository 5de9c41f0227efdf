#!/usr/bin/env python3
"""Processes the messages of a subscription, one at a time, and survives restarts of the server. Standard library only.

    ./worker.py http://127.0.0.1:8081 orders worker

- It waits at the server for the next message (long poll), and leases it: several workers share a subscription.
- It acknowledges a message after it has processed it. What was not acknowledged when it dies comes again: at least once.
- What cannot be processed is returned (nack) and comes again after a pause.
- While the server is away it tries again, less and less often.
"""

import http.client
import json
import random
import sys
import time
import urllib.parse

LEASE = "30s"
WAIT = 20  # seconds, at most 30


class Unavailable(Exception):
    """No answer, or one that another try may improve."""


class Subscription:
    def __init__(self, server, topic, name):
        self.host = urllib.parse.urlsplit(server).netloc
        quoted = [urllib.parse.quote(part, safe="") for part in (topic, name)]
        self.path = "/v1/topics/%s/subscriptions/%s" % tuple(quoted)
        self.connection = None

    def request(self, method, path, body=None):
        try:
            if self.connection is None:
                self.connection = http.client.HTTPConnection(self.host, timeout=WAIT + 15)
            self.connection.request(method, self.path + path, body, {"content-type": "application/json"})
            response = self.connection.getresponse()
            content = response.read()
        except (OSError, http.client.HTTPException) as lost:
            self.connection = None
            raise Unavailable(lost) from lost
        if response.status in (429, 500, 502, 503, 504):
            raise Unavailable("%d %s" % (response.status, content.decode(errors="replace")))
        return response, content

    def next(self):
        """The next message and its body, or None."""
        response, body = self.request("GET", "/messages?wait=%ds&lease=%s" % (WAIT, LEASE))
        if response.status == 204:
            return None
        if response.status == 409:
            raise Unavailable("the subscription is suspended")
        if response.status != 200:
            sys.exit("%d %s" % (response.status, body.decode(errors="replace")))
        return response, body

    def settle(self, verb, message, **options):
        """Acknowledges or returns a message; 409: it was seeked away or is leased by another worker by now."""
        tokens = dict(options, tokens=[message.headers["millrace-token"]])
        response, body = self.request("POST", ":" + verb, json.dumps(tokens))
        if response.status not in (200, 409):
            sys.exit("%d %s" % (response.status, body.decode(errors="replace")))


def process(message, body):
    """The work itself. A message may come twice: message.headers["millrace-id"] is the same each time."""
    print(body.decode(errors="replace"), flush=True)


def work(subscription):
    pause = 0.1
    pending = None  # a message that is processed, and what to do with it
    while True:
        try:
            if pending is None:
                found = subscription.next()
                pause = 0.1
                if found is None:
                    continue
                message, body = found
                try:
                    process(message, body)
                    pending = ("ack", message, {})
                except Exception as failure:  # pylint: disable=broad-except
                    print("%s: %s" % (message.headers["millrace-id"], failure), file=sys.stderr)
                    pending = ("nack", message, {"delay": "5s"})
            verb, message, options = pending
            subscription.settle(verb, message, **options)
            pending = None
        except Unavailable as why:
            print("%s; again in %.1f s" % (why, pause), file=sys.stderr)
            time.sleep(pause * random.uniform(0.5, 1))
            pause = min(pause * 2, 5)


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit("usage: worker.py http://HOST:PORT TOPIC SUBSCRIPTION")
    work(Subscription(*sys.argv[1:]))
