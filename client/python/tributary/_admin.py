# SPDX-License-Identifier: Apache-2.0
"""Creating and following jobs."""
import http.client
import json
import socket
import time
import urllib.parse
import uuid

from ._http import Http, Problem, Unreachable
from ._safetensors import dump

OVER = ("Succeeded", "Failed", "Stopped")


class Admin:
    """The orchestrator's REST interface.

    api_url    "http://host:8080"
    token, timeout, retry_for, cafile, certfile, keyfile   as for Client

    A job is a dict as the service returns it: metadata.id, metadata.name, spec, status.phase
    (Pending, Running, Paused, Succeeded, Failed, Stopped), status.round, status.version. Where a
    method takes a job, its id or such a dict will do. Raises Problem and Unreachable."""

    def __init__(self, api_url, token=None, timeout=60, retry_for=120, cafile=None,
                 certfile=None, keyfile=None):
        self._options = {"token": token, "timeout": timeout, "retry_for": retry_for,
                         "cafile": cafile, "certfile": certfile, "keyfile": keyfile}
        self._http = Http(api_url, **self._options)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self._http.close()

    @staticmethod
    def _id(job):
        return job["metadata"]["id"] if isinstance(job, dict) else job

    def _path(self, job, rest=""):
        return f"/v1/jobs/{urllib.parse.quote(self._id(job), safe='')}{rest}"

    def _json(self, method, path, value=None, more=None):
        body, fields = None, {"Accept": "application/json"}
        if method == "POST":  # safe to repeat: the service remembers the key's answer
            fields["Idempotency-Key"] = uuid.uuid4().hex
        if value is not None:
            body = [json.dumps(value).encode()]
            fields["Content-Type"] = "application/json"
        fields.update(more or {})
        return self._http.request(method, path, body, fields).json()

    def submit(self, spec, name=None, labels=None):
        """Creates a job; returns it. `spec` is the whole object (apiVersion, kind, metadata, spec)
        or only its spec, then `name` (a-z, 0-9, '-') and labels make the metadata."""
        if "kind" not in spec:
            metadata = {"name": name or "job-" + uuid.uuid4().hex[:8]}
            if labels:
                metadata["labels"] = labels
            spec = {"apiVersion": "tributary/v1", "kind": "AggregationJob", "metadata": metadata,
                    "spec": spec}
        return self._json("POST", "/v1/jobs", spec)

    def get(self, job):
        """The job as it is now."""
        return self._json("GET", self._path(job))

    def patch(self, job, spec=None, labels=None, etag="*"):
        """Changes a job while it runs, at once; returns it. `spec` is a merge patch of the job's spec,
        such as {"mode": "async", "async": {"buffer_k": 8}}; None as a value takes the default. With
        `etag` (the ETag of a GET) only if nobody changed the spec since: Problem "version-conflict"."""
        change = {}
        if spec is not None:
            change["spec"] = spec
        if labels is not None:
            change["metadata"] = {"labels": labels}
        return self._json("PATCH", self._path(job), change,
                          {"Content-Type": "application/merge-patch+json", "If-Match": etag})

    def list(self):
        """All jobs."""
        jobs, cursor = [], None
        while True:
            query = "?limit=200" + (f"&cursor={urllib.parse.quote(cursor)}" if cursor else "")
            page = self._json("GET", "/v1/jobs" + query)
            jobs += _items(page)
            cursor = next((page[k] for k in ("next_cursor", "cursor", "next")
                           if isinstance(page, dict) and page.get(k)), None)
            if not cursor:
                return jobs

    def rounds(self, job, limit=500):
        """The job's rounds, as dicts: round, state, base_version, version, accepted, selected,
        stragglers, late, timings (ms), ..."""
        return _items(self._json("GET", self._path(job, f"/rounds?limit={int(limit)}")))

    def round(self, job, number):
        """One round."""
        return self._json("GET", self._path(job, f"/rounds/{int(number)}"))

    def stop(self, job):
        """Ends the job; its last model stays."""
        return self._json("POST", self._path(job, ":stop"))

    def pause(self, job):
        return self._json("POST", self._path(job, ":pause"))

    def drain(self, job):
        """Ends the job in order: nobody is selected any more, who has a place may report, what was
        accepted makes a last version."""
        return self._json("POST", self._path(job, ":drain"))

    def resume(self, job):
        return self._json("POST", self._path(job, ":resume"))

    def delete(self, job):
        """Forgets a job that is over."""
        self._json("DELETE", self._path(job))

    def issue_tokens(self, job, client=None, ttl_s=None, count=1, labels=None):
        """Tokens for clients of a job whose spec says auth.clients: token, for one client id or any.
        A list of {"id", "token", "client", "expires"}: the only time the tokens are seen. `labels`
        ({key: value}) are their holders', for selection.labels."""
        wish = {"client": client, "ttl_s": ttl_s, "count": count, "labels": labels}
        return _items(self._json("POST", self._path(job, "/tokens"),
                                 {k: v for k, v in wish.items() if v is not None}))

    def tokens(self, job):
        """The job's tokens, not they themselves: id, client, scope, created, expires."""
        found, cursor = [], None
        while True:
            query = "?limit=500" + (f"&cursor={urllib.parse.quote(cursor)}" if cursor else "")
            page = self._json("GET", self._path(job, "/tokens" + query))
            found += _items(page)
            cursor = page.get("next")
            if not cursor:
                return found

    def revoke_token(self, job, token_id):
        """At once; Problem "no-such-token" when there is none."""
        self._json("DELETE", self._path(job, "/tokens/" + urllib.parse.quote(token_id, safe="")))

    def data_url(self, job):
        """Where clients of the job go."""
        if not isinstance(job, dict) or "status" not in job:
            job = self.get(job)
        return job.get("status", {}).get("endpoints", {}).get("data") or self._http.base

    def upload_initial_model(self, job, tensors):
        """Version 0, which fixes names, shapes and dtypes: {name: float32 array}. Safe to repeat
        with the same content; Problem "model-conflict" with other content."""
        data = Http(self.data_url(job), **self._options)
        try:
            return data.request("PUT", self._path(job, "/models/0"), dump(tensors),
                                {"Content-Type": "application/vnd.safetensors"}).json()
        finally:
            data.close()

    def wait(self, job, timeout=None, phases=OVER, every=0.5):
        """Until the job is in one of `phases`; returns it. TimeoutError after `timeout` seconds."""
        end = None if timeout is None else time.monotonic() + timeout
        while True:
            now = self.get(job)
            if now.get("status", {}).get("phase") in phases:
                return now
            if end is not None and time.monotonic() + every > end:
                raise TimeoutError(f"job {self._id(job)} is {now.get('status', {}).get('phase')} "
                                   f"after {timeout} s")
            time.sleep(every)

    def events(self, job, last_id=None, timeout=None):
        """Iterates over the job's events as they happen: {"id", "type", "data": dict}. With
        `last_id` it starts after that event. Connects again when the connection is lost, without
        losing events. Ends after a job.finished, job.failed or job.stopped event, or after
        `timeout` seconds."""
        end = None if timeout is None else time.monotonic() + timeout
        lost = 0
        while end is None or time.monotonic() < end:
            try:
                for event in self._stream(job, last_id, end):
                    last_id, lost = event["id"] or last_id, 0
                    yield event
                    if event["type"] in ("job.finished", "job.failed", "job.stopped"):
                        return
            except (OSError, http.client.HTTPException) as e:
                lost += 1
                if lost > 20:
                    raise Unreachable(f"events of {self._id(job)}: {e!r}") from e
            time.sleep(min(2.0, 0.1 * 2 ** min(lost, 8)))

    def _stream(self, job, last_id, end):
        """One connection's worth of events. A comment comes every 15 s, so 40 s of silence means
        that the connection is dead."""
        parts = urllib.parse.urlsplit(self._http.resolve(self._path(job, "/events")))
        http_ = Http(self._http.base, **self._options)
        silence = 40.0 if end is None else max(0.1, min(40.0, end - time.monotonic()))
        connection = http_.open(parts, silence)
        try:
            fields = {"Accept": "text/event-stream"}
            if last_id:
                fields["Last-Event-ID"] = last_id
            connection.request("GET", parts.path, headers=http_.headers(parts, fields))
            response = connection.getresponse()
            if response.status != 200:
                data = response.read()
                if response.status in (429, 502, 503, 504):
                    raise OSError(f"answered {response.status}")
                raise _as_problem(response.status, data)
            yield from _parse(response)
        except (TimeoutError, socket.timeout):  # not the same before Python 3.10
            return
        finally:
            connection.close()


def _as_problem(status, data):
    try:
        return Problem(status, json.loads(data))
    except ValueError:
        return Problem(status, {})


def _items(page):
    if isinstance(page, list):
        return page
    return next((page[k] for k in ("items", "jobs", "rounds") if isinstance(page.get(k), list)), [])


def _parse(response):
    """text/event-stream -> events."""
    event = {}
    while True:
        line = response.readline(1 << 20)
        if not line:
            return
        line = line.decode("utf-8", "replace").rstrip("\r\n")
        if not line:
            if "data" in event:
                try:
                    data = json.loads(event["data"])
                except ValueError:
                    data = {"text": event["data"]}
                kind = event.get("event") or (data.get("t") if isinstance(data, dict) else None)
                yield {"id": event.get("id"), "type": kind or "message", "data": data}
            event = {}
            continue
        name, _, value = line.partition(":")
        value = value[1:] if value.startswith(" ") else value
        if name == "data" and "data" in event:
            event["data"] += "\n" + value
        elif name:
            event[name] = value
