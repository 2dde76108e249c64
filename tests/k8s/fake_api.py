# SPDX-License-Identifier: Apache-2.0
"""As much of a Kubernetes API server as the orchestrator's reconciler uses, over TLS: list in pages, watch with
bookmarks, 410 Gone, merge patches of objects and of status, finalizers, resourceVersions, bearer tokens.

What a test wants to go wrong: `cut()` ends all watches, `expire()` makes all known versions too old (410), `stop()` and
`start()` restart the server with its objects, `say(text)` puts a line of one's own into every watch."""
import copy
import http.server
import json
import queue
import ssl
import threading
import urllib.parse
import uuid

GROUP, PLURAL = "/apis/tributary.io/v1", "aggregationjobs"


def merge(target, patch):
    """RFC 7396."""
    if not isinstance(patch, dict):
        return patch
    target = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            target.pop(key, None)
        else:
            target[key] = merge(target.get(key), value)
    return target


class Refused(Exception):
    def __init__(self, status, reason):
        super().__init__(reason)
        self.status, self.reason = status, reason


class FakeApi:
    def __init__(self, certificate, token):
        self.certificate, self.token, self.port = certificate, token, 0
        self.lock = threading.RLock()
        self.objects, self.version, self.oldest = {}, 100, 0
        self.log = []  # (version, event)
        self.watches, self.requests = [], []
        self.server = None
        self.start()

    # ---- objects ----

    def changed(self, kind, o):
        self.version += 1
        o["metadata"]["resourceVersion"] = str(self.version)
        event = {"type": kind, "object": copy.deepcopy(o)}
        self.log.append((self.version, event))
        for w in self.watches:
            w.put(event)

    def apply(self, name, spec, space="default", status=None):
        """kubectl apply: a new object, or a new spec of it."""
        with self.lock:
            old = self.objects.get((space, name))
            if old:
                if old["spec"] != spec:
                    old["spec"] = spec
                    old["metadata"]["generation"] += 1
                    self.changed("MODIFIED", old)
                return
            o = {"apiVersion": "tributary.io/v1", "kind": "AggregationJob", "spec": spec,
                 "metadata": {"name": name, "namespace": space, "uid": str(uuid.uuid4()), "generation": 1,
                              "creationTimestamp": "2026-01-01T00:00:00Z"}}
            if status:
                o["status"] = status
            self.objects[space, name] = o
            self.changed("ADDED", o)

    def delete(self, name, space="default"):
        with self.lock:
            o = self.objects[space, name]
            o["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
            self.settle(o)

    def settle(self, o):
        """An object that is to go and has no finalizer goes."""
        meta = o["metadata"]
        if "deletionTimestamp" in meta and not meta.get("finalizers"):
            del self.objects[meta["namespace"], meta["name"]]
            self.changed("DELETED", o)
        else:
            self.changed("MODIFIED", o)

    def get(self, name, space="default"):
        with self.lock:
            return copy.deepcopy(self.objects.get((space, name)))

    def status(self, name, space="default"):
        return (self.get(name, space) or {}).get("status", {})

    def patch(self, space, name, sub, body):
        with self.lock:
            o = self.objects.get((space, name))
            if not o:
                raise Refused(404, "NotFound")
            meta = body.get("metadata", {})
            for key in ("resourceVersion", "uid"):
                if meta.get(key, o["metadata"][key]) != o["metadata"][key]:
                    raise Refused(409, "Conflict")
            if sub == "status":
                fresh = merge(o.get("status"), body.get("status", {}))
                if fresh != o.get("status"):
                    o["status"] = fresh
                    self.changed("MODIFIED", o)
            else:
                before = copy.deepcopy(o)
                o["metadata"] = merge(o["metadata"], {k: v for k, v in meta.items() if k == "finalizers"})
                if "spec" in body:
                    raise Refused(403, "Forbidden")  # a reconciler has no business there
                if o != before:
                    self.settle(o)
            return copy.deepcopy(o)

    # ---- trouble ----

    def cut(self):
        with self.lock:
            for w in self.watches:
                w.put(None)

    def expire(self):
        with self.lock:
            self.oldest = self.version + 1
            self.version += 1
            gone = {"type": "ERROR", "object": {"kind": "Status", "code": 410, "reason": "Expired"}}
            for w in self.watches:
                w.put(gone)

    def say(self, text):
        with self.lock:
            for w in self.watches:
                w.put(text)

    def count(self, what):
        with self.lock:
            return sum(1 for r in self.requests if r == what)

    # ---- the server ----

    def start(self):
        api = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def do_GET(self):
                api.handle(self)

            do_PATCH = do_GET

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self.server.daemon_threads = True
        self.port = self.server.server_address[1]
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*self.certificate)
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True, do_handshake_on_connect=False)
        self.url = f"https://127.0.0.1:{self.port}"
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self):
        self.cut()
        self.server.shutdown()
        self.server.server_close()

    def handle(self, h):
        body = h.rfile.read(int(h.headers.get("Content-Length", 0)))
        u = urllib.parse.urlsplit(h.path)
        query = dict(urllib.parse.parse_qsl(u.query))
        words = u.path[len(GROUP) + 1:].split("/") if u.path.startswith(GROUP + "/") else []
        try:
            if h.headers.get("Authorization") != f"Bearer {self.token}":
                raise Refused(401, "Unauthorized")
            space = words[1] if words[:1] == ["namespaces"] else None
            words = words[2:] if space else words
            if words[:1] != [PLURAL]:
                raise Refused(404, "NotFound")
            if h.command == "PATCH":
                if h.headers.get("Content-Type") != "application/merge-patch+json":
                    raise Refused(415, "UnsupportedMediaType")
                with self.lock:
                    self.requests.append("patch" + "".join("/" + w for w in words[2:]))
                self.answer(h, 200, self.patch(space, words[1], words[2] if len(words) > 2 else "", json.loads(body)))
            elif "watch" in query:
                self.watch(h, space, query)
            else:
                self.answer(h, 200, self.list(space, query))
        except Refused as e:
            self.answer(h, e.status, {"kind": "Status", "code": e.status, "reason": e.reason, "message": e.reason})
        except (BrokenPipeError, ConnectionError, ssl.SSLError):
            h.close_connection = True

    def answer(self, h, status, doc):
        data = json.dumps(doc).encode()
        h.send_response(status)
        h.send_header("Content-Type", "application/json")
        h.send_header("Content-Length", str(len(data)))
        h.end_headers()
        h.wfile.write(data)

    def list(self, space, query):
        with self.lock:
            self.requests.append("list")
            all_ = [o for (s, _), o in sorted(self.objects.items()) if space in (None, s)]
            first, limit = int(query.get("continue", "0").strip("+/= ") or 0), int(query.get("limit", 500))
            meta = {"resourceVersion": str(self.version)}
            if first + limit < len(all_):
                meta["continue"] = f"{first + limit}=+/"  # to be escaped
            return copy.deepcopy({"kind": "AggregationJobList", "metadata": meta, "items": all_[first:first + limit]})

    def watch(self, h, space, query):
        mine = queue.Queue()
        with self.lock:
            self.requests.append("watch")
            since = int(query["resourceVersion"])
            if since < self.oldest:
                raise Refused(410, "Expired")
            for version, event in self.log:
                if version > since:
                    mine.put(event)
            self.watches.append(mine)
        try:
            h.send_response(200)
            h.send_header("Content-Type", "application/json")
            h.send_header("Transfer-Encoding", "chunked")
            h.end_headers()
            while True:
                try:
                    event = mine.get(timeout=0.5)
                except queue.Empty:
                    with self.lock:
                        event = {"type": "BOOKMARK", "object": {"kind": "AggregationJob", "metadata": {
                            "resourceVersion": str(self.version)}}} if mine.empty() else mine.get()
                if event is None:
                    break
                if isinstance(event, dict) and space not in (None, event["object"]["metadata"].get("namespace", space)
                                                             if "metadata" in event["object"] else space):
                    continue
                data = (event if isinstance(event, str) else json.dumps(event)).encode() + b"\n"
                h.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
                h.wfile.flush()
            h.wfile.write(b"0\r\n\r\n")
        finally:
            with self.lock:
                self.watches.remove(mine)
            h.close_connection = True
