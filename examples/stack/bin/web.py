"""A web application of the standard library: visits counted in Redis and PostgreSQL."""
import json
import os
import socket
import subprocess
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

REDIS = ("127.0.0.1", int(os.environ["REDIS_PORT"]))
PG = ["psql", "-X", "-q", "-A", "-t", "-h", "127.0.0.1", "-p", os.environ["PG_PORT"], "-U", "postgres", "-d", "postgres", "-c"]

PAGE = """<!doctype html><meta charset="utf-8"><title>Perdure example</title>
<style>body{{font:16px/1.5 system-ui;max-width:36em;margin:4em auto;padding:0 1em}}button{{font:inherit;padding:.4em 1em}}</style>
<h1>It runs</h1>
<p>Visits: <b>{redis}</b> in Redis, <b>{postgres}</b> in PostgreSQL. This program has pid {pid} and is generation {generation}.</p>
<form action="/crash"><button>Crash it</button></form>
<p>Then load the page again: it has a new pid. <code>perdure status web</code> says what happened.</p>"""


def redis(*words):
    """Sends one command in Redis's protocol and returns the first line of the answer."""
    with socket.create_connection(REDIS, timeout=2) as conn:
        conn.sendall(b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(w), w) for w in (w.encode() for w in words)))
        return conn.makefile("rb").readline().decode().strip()


def postgres(sql):
    return subprocess.run(PG + [sql], capture_output=True, text=True, timeout=3, check=True).stdout.strip()


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path.startswith("/crash"):
            print("asked to crash", flush=True)
            os._exit(1)
        elif self.path == "/health":
            self.health()
        elif self.path == "/":
            self.answer(200, "text/html; charset=utf-8", PAGE.format(
                redis=redis("INCR", "visits").lstrip(":"), pid=os.getpid(), generation=os.environ.get("PERDURE_GENERATION", "?"),
                postgres=postgres("WITH v AS (INSERT INTO visits DEFAULT VALUES RETURNING id) SELECT id FROM v")))
        else:
            self.answer(404, "text/plain", "not found\n")

    def health(self):
        try:
            ok = redis("PING") == "+PONG" and postgres("SELECT 1") == "1"
        except (OSError, subprocess.SubprocessError) as error:
            print(f"unhealthy: {error}", flush=True)
            ok = False
        self.answer(200 if ok else 503, "application/json", json.dumps({"status": "healthy" if ok else "unhealthy"}))

    def answer(self, status, kind, text):
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format, *args):
        if self.path != "/health":
            print(format % args, flush=True)


if __name__ == "__main__":
    address = ("127.0.0.1", int(os.environ["WEB_PORT"]))
    print("listening on http://%s:%d" % address, flush=True)
    ThreadingHTTPServer(address, Handler).serve_forever()
