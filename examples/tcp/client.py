#!/usr/bin/env python3
"""Sends the lines of the standard input over tcp/1 until each is acknowledged. Standard library only.

    printf 'one\\ntwo\\n' | ./client.py sensor7 [host [port]]

In the environment: CA_FILE if the server encrypts, the authorities to trust; TOKEN if it wants a key; or CERTIFICATE_FILE, the
client's own certificate and its key.

The rules of a client, which are all there is to it:
- A number belongs to the client and its epoch, not to the connection; a message sent again keeps its number and bytes.
- At most 1,024 frames are without an answer.
- 409, 429, 503 and 507: send again, in order, once everything sent is answered. Other refusals are final.
- After a lost connection, everything without an answer is sent again from the first one on, in order.
"""

import collections
import os
import re
import socket
import ssl
import sys
import time

WINDOW = 1024
AGAIN = {b"409", b"429", b"503", b"507"}


class Lost(Exception):
    """The connection is gone; another one continues."""


def connect(host, port, client, epoch):
    connection = socket.create_connection((host, port), timeout=30)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if "CERTIFICATE_FILE" in os.environ and "CA_FILE" not in os.environ:
        sys.exit("CERTIFICATE_FILE needs CA_FILE: without it the connection is not encrypted")
    if "CA_FILE" in os.environ:
        context = ssl.create_default_context(cafile=os.environ["CA_FILE"])
        if "CERTIFICATE_FILE" in os.environ:
            context.load_cert_chain(os.environ["CERTIFICATE_FILE"])
        try:
            connection = context.wrap_socket(connection, server_hostname=host)
        except ssl.SSLCertVerificationError as error:
            sys.exit("the server is not trusted: %s" % error)
    token = b" token=" + os.environb[b"TOKEN"] if b"TOKEN" in os.environb else b""
    replies = connection.makefile("rb")
    connection.sendall(b"HELLO %s epoch=%d%s\n" % (client, epoch, token))
    answer = replies.readline()
    if answer.startswith((b"NACK 0 401", b"NACK 0 403")):
        sys.exit("refused: %s" % answer.decode().strip())
    if not answer.startswith(b"OK "):
        raise Lost("no OK")
    return connection, replies


def reply(replies, seq):
    """Reads the reply to the frame `seq`: True if it is answered for good, a number of seconds to wait if not."""
    line = replies.readline()
    words = line.split()
    if not line.endswith(b"\n") or words[:2] == [b"NACK", b"0"]:
        raise Lost(line.decode() or "closed")
    if int(words[1]) != seq:
        sys.exit("unexpected reply: %r" % line)
    if words[0] == b"ACK":
        return True
    if words[2] in AGAIN:
        retry = re.search(rb"retry_ms=(\d+)", line)
        return float(retry.group(1)) / 1000 if retry else 0.1
    print("refused: %s" % line.decode().strip(), file=sys.stderr)
    return True


def send(messages, host, port, client, epoch):
    messages = enumerate(messages, 1)
    unanswered = collections.deque()  # (seq, payload), in order
    more = True
    pause = 0.05
    while more or unanswered:
        # Refused for now: in front of what has no answer yet. Both are sent again after a lost connection.
        refused = []
        try:
            connection, replies = connect(host, port, client, epoch)
            while more or unanswered:
                while more and len(unanswered) < WINDOW:
                    message = next(messages, None)
                    more = message is not None
                    if more:
                        unanswered.append(message)
                connection.sendall(b"".join(b"- %d %d\n%s\n" % (seq, len(data), data) for seq, data in unanswered))
                wait = 0.0
                while unanswered:
                    answer = reply(replies, unanswered[0][0])
                    message = unanswered.popleft()
                    if answer is not True:
                        refused.append(message)
                        wait = max(wait, answer)
                unanswered.extend(refused)
                refused = []
                pause = 0.05
                time.sleep(wait)
            connection.close()
        except (OSError, Lost) as lost:
            print("connection lost: %s" % lost, file=sys.stderr)
            unanswered.extendleft(reversed(refused))
            time.sleep(pause)
            pause = min(pause * 2, 2)


def main():
    client = sys.argv[1].encode()
    host = sys.argv[2] if len(sys.argv) > 2 else "127.0.0.1"
    port = int(sys.argv[3]) if len(sys.argv) > 3 else 8084
    lines = (line.rstrip(b"\n") for line in sys.stdin.buffer)
    # By convention the epoch is the client's start in ms: a restarted client numbers from 1 again.
    send(lines, host, port, client, time.time_ns() // 1_000_000)


if __name__ == "__main__":
    main()
