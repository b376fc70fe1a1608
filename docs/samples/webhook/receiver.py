#!/usr/bin/env python3
"""A receiver for Certwright's webhooks: it decides from a CSV file, and writes down what it is told.

    receiver.py --secret-file secret --devices devices.csv --cert receiver.pem --key receiver.key [--listen 127.0.0.1:8444]

The CSV file has a line for each device: its id, its challenge, its group, and what to decide: allow, deny or pending. It is
read for each request, so that it can be changed at any time. A device is known by its challenge, or, without one (a
renewal, or a challenge of Certwright's own), by the id that Certwright tells.

Python 3.9 or newer, and nothing beside its standard library. See docs/webhook.md for what is sent and answered.
"""

import argparse
import csv
import hashlib
import hmac
import http.server
import json
import ssl
import sys
import time

MAX_BODY = 256 * 1024  # octets
MAX_AGE = 300  # seconds that a message may be old, or our clock wrong
VERSION = 1


def authentic(header, body, secrets, now):
    """Reports whether a message is Certwright's: some v1 of the header is right for some secret, and the time is near."""
    parts = [part.partition("=")[::2] for part in (header or "").split(",")]
    stamps = [value for name, value in parts if name == "t"]
    signatures = [value for name, value in parts if name == "v1"]
    if len(stamps) != 1 or not stamps[0].isascii() or not stamps[0].isdigit() or len(stamps[0]) > 12:
        return False
    if abs(now - int(stamps[0])) > MAX_AGE:
        return False
    good = False
    for secret in secrets:
        want = hmac.new(secret, stamps[0].encode() + b"." + body, hashlib.sha256).hexdigest()
        for signature in signatures:
            good |= hmac.compare_digest(want.encode(), signature.encode())
    return good


def decide(event, devices):
    """Returns the answer to a request. devices are the rows of the CSV file: id, challenge, group, decision."""
    request, claimed = event["request"], event.get("device", {}).get("id", "")
    found = None
    for device, challenge, group, decision in devices:
        if request["challenge_kind"] == "webhook":
            known = challenge != "" and hmac.compare_digest(challenge.encode(), request.get("challenge", "").encode())
        else:
            known = device == claimed  # something else has proven that: a one-time challenge, or the certificate in "renews"
        if known:
            found = (device, group, decision)
    if found is None:
        return {"decision": "deny", "reason": "nobody has announced this device"}
    device, group, decision = found
    if claimed and claimed != device:
        return {"decision": "deny", "reason": "the challenge is of another device"}
    answer = {"decision": decision, "device": device}
    if decision != "allow":
        answer["reason"] = "the list says " + decision
    if group and decision != "deny":
        answer["group"] = group
    return answer


class Receiver(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 30

    def do_POST(self):
        try:
            length = int(self.headers.get("Content-Length", ""))
        except ValueError:
            return self.reply(411)
        if not 0 <= length <= MAX_BODY:
            self.close_connection = True
            return self.reply(413)
        body = self.rfile.read(length)
        if not authentic(self.headers.get("Certwright-Signature"), body, self.server.secrets(), time.time()):
            return self.reply(401)
        event = json.loads(body)
        if event.get("version") != VERSION:
            return self.reply(400)
        if event["type"] == "request":
            with open(self.server.devices, newline="", encoding="utf-8") as f:
                answer = decide(event, [row for row in csv.reader(f) if len(row) == 4])
            self.note(event, answer)
            return self.reply(200, answer)
        # What happened may be told more than once: the id is the same then.
        self.note(event, None)
        return self.reply(204)

    def note(self, event, answer):
        line = {key: event[key] for key in ("id", "type", "point", "transaction_id", "decision", "reason", "detail") if key in event}
        if answer is not None:
            line["answer"] = answer
        if "certificate" in event:
            line["serial"] = event["certificate"]["serial"]
        print(json.dumps(line), flush=True)

    def reply(self, status, answer=None):
        body = b"" if answer is None else json.dumps(answer).encode()
        self.send_response(status)
        if status != 204:
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, address, args):
        self.devices, self.secret_file = args.devices, args.secret_file
        self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.tls.load_cert_chain(args.cert, args.key)
        super().__init__(address, Receiver)

    def secrets(self):
        """One secret a line: while it is changed there are two."""
        with open(self.secret_file, "rb") as f:
            return [line.strip() for line in f if line.strip()]

    def finish_request(self, request, client_address):  # in the connection's own thread
        request.settimeout(Receiver.timeout)
        with self.tls.wrap_socket(request, server_side=True) as connection:
            super().finish_request(connection, client_address)

    def handle_error(self, request, client_address):
        print("failed:", client_address[0], sys.exc_info()[1], file=sys.stderr, flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    for name in ("secret-file", "devices", "cert", "key"):
        parser.add_argument("--" + name, required=True)
    parser.add_argument("--listen", default="127.0.0.1:8444")
    args = parser.parse_args()
    host, _, port = args.listen.rpartition(":")
    server = Server((host.strip("[]"), int(port)), args)
    print("listening on", server.server_address[1], file=sys.stderr, flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
