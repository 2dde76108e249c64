# SPDX-License-Identifier: Apache-2.0
"""What one federated client does: check in, fetch the model, train, report."""
import json
import random
import time
from urllib.parse import quote

from ._http import Http, JobOver, Problem, RoundClosed
from ._safetensors import dump, load, numpy, to_array

try:  # pure Python would be slower than the network: a checksum only where a module makes it
    from crc32c import crc32c as _crc32c
except ImportError:
    try:
        from google_crc32c import extend as _google_extend

        def _crc32c(data, crc=0):
            return _google_extend(crc, bytes(data))
    except ImportError:
        _crc32c = None

PIECE = 1 << 20


def _checksum(buffers):
    crc = 0
    for buffer in buffers:
        view = memoryview(buffer)
        for begin in range(0, len(view), PIECE):
            crc = _crc32c(view[begin:begin + PIECE], crc)
    return f"crc32c={crc:08x}"


def _as_float32(tensors, dtypes):
    """Floating arrays whose dtype the job does not take, as float32."""
    if numpy is None or "F32" not in dtypes:
        return tensors
    result = {}
    for name, value in tensors.items():
        if hasattr(value, "detach"):
            value = value.detach().cpu().numpy()
        if isinstance(value, numpy.ndarray) and value.dtype in (numpy.float64, numpy.float16) and \
                ("F64" if value.dtype == numpy.float64 else "F16") not in dtypes:
            value = value.astype("<f4")
        result[name] = value
    return result

RESUME_BYTES = 1 << 20  # smaller uploads are quicker sent again


class Client:
    """Takes part in one job, or in the jobs of a pool, under one identity.

    url        the data interface, "http://host:8081" (the orchestrator's URL works as well)
    job        "job_..."
    client_id  1 to 64 of A-Z a-z 0-9 . _ : - ; each identity counts once per round
    token      sent as a bearer token, if given
    pool       instead of a job: the name of a pool of jobs; each check-in is for the one that the
               service picks ("job" in what `checkin` returns). tenant: whose pool it is
    labels     {key: value} that selection.labels of a job may ask for, at most 16; those that an
               operator bound to the token go first
    timeout    seconds without progress after which a connection is given up
    retry_for  seconds during which a failing request is tried again
    cafile     certificates to trust (https)
    certfile   our own certificate, where the service asks for one (its SAN URI must be
               tributary:client/<client_id>), keyfile its private key

    Methods raise Problem (RoundClosed, JobOver among them) when the service refuses, Unreachable
    when it cannot be reached for `retry_for` seconds, SafetensorsError on malformed models. Not
    thread-safe: one Client per thread.
    """

    def __init__(self, url, job, client_id, token=None, timeout=60, retry_for=120, cafile=None,
                 certfile=None, keyfile=None, pool=None, tenant=None, labels=None):
        if (job is None) == (pool is None):
            raise ValueError("either a job or a pool")
        self.job, self.client_id, self.pool, self.tenant = job, client_id, pool, tenant
        self.labels = dict(labels or {})
        self._http = Http(url, token=token, timeout=timeout, retry_for=retry_for, cafile=cafile,
                          certfile=certfile, keyfile=keyfile)
        self._path = f"/v1/jobs/{quote(job, safe='')}" if job else "/v1"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        """Closes connections; the client can still be used."""
        self._http.close()

    def checkin(self, wait=25):
        """Asks for work; the service may take up to `wait` seconds to find some.

        Returns a dict with "status": "selected" (a ticket, see `update`: round, base_version,
        deadline, config, model, upload), "wait" (retry_after in seconds, why; when
        that is "not-eligible": the condition on labels that is wanted) or "done" (state)."""
        asked = {"client_id": self.client_id}
        if self.labels:
            asked["labels"] = self.labels
        if self.pool:
            asked["pool"] = self.pool
            if self.tenant:
                asked["tenant"] = self.tenant
        body = json.dumps(asked).encode()
        answer = self._http.request(
            "POST", f"{self._path}/checkins", [body],
            {"Content-Type": "application/json", "Prefer": f"wait={int(wait)}"},
            timeout=max(self._http.timeout, wait + 15))
        return answer.json()

    def model(self, version="latest"):
        """A published model: ({name: array}, version). `version` is a number, "latest" or a ticket
        (then the model it is based on). Arrays share the memory received and are read-only."""
        if isinstance(version, dict):
            target = version["model"]["url"]
        else:
            if not self.job:
                raise ValueError("in a pool: the model of a ticket")
            target = f"{self._path}/models/{version}"
        answer = self._http.request("GET", target,
                                    fields={"Accept": "application/vnd.safetensors"})
        tensors = {name: to_array(t) for name, t in load(answer.data).items()}
        return tensors, int(answer.headers["FL-Version"])

    def update(self, ticket, tensors, weight, metrics=None, kind=None):
        """Reports the result of local training; returns the receipt (a dict: update, round, state,
        digest, weight, counted, ...).

        ticket   what `checkin` returned with status "selected"
        tensors  {name: array}: names, shapes as in the model; the difference to the base model, or
                 the new weights, as the job's aggregation.input says. Finite values. float64 and
                 float16 are sent as float32 when the job takes float32 only.
        weight   finite and positive, usually the number of examples
        metrics  {name: number}, at most 32, optional
        kind     "delta" or "weights": checked against the job, optional

        Large ones go on where a broken connection left them. Safe to repeat: the same content
        counts once. Raises RoundClosed when it came too late,
        Problem "already-reported" when other content was reported before."""
        upload = ticket["upload"]
        buffers = dump(_as_float32(tensors, upload.get("dtypes", ["F32"])))
        fields = {"Content-Type": "application/vnd.safetensors",
                  "FL-Ticket": upload["ticket"],
                  "FL-Client": self.client_id,
                  "FL-Round": str(ticket["round"]),
                  "FL-Base-Version": str(ticket["base_version"]),
                  "FL-Weight": _decimal(weight),
                  "FL-Encoding": "dense"}
        if kind:
            fields["FL-Kind"] = kind
        if _crc32c:
            fields["FL-Checksum"] = _checksum(buffers)
        if metrics:
            fields["FL-Metrics"] = ", ".join(f"{name}={_decimal(value)}"
                                             for name, value in metrics.items())
        size = sum(memoryview(b).nbytes for b in buffers)
        resume = upload.get("resume") if size >= RESUME_BYTES else None
        return self._http.request("PUT", upload["url"], buffers, fields, resume=resume).json()

    def run(self, train, wait=25, stop=None, on_round=None):
        """Takes part until the job is over. For each round it is selected for, calls

            train(params, config, round) -> (tensors, weight) or (tensors, weight, metrics)

        with the base model's arrays (read-only: copy before changing), the job's client_config and
        the round's number; None instead of a tuple leaves the round out. `stop()` is asked between
        rounds; True ends the loop. `on_round(round, outcome)` is told "accepted", "late" or
        "skipped". Returns {"rounds": accepted, "late": n, "skipped": n, "state": how it ended}."""
        result = {"rounds": 0, "late": 0, "skipped": 0, "state": "stopped-here"}
        params, version, skipped = None, None, None
        while not (stop and stop()):
            ticket = self.checkin(wait)
            if ticket["status"] == "done":
                result["state"] = ticket.get("state", "done")
                break
            job = ticket.get("job")  # None: there is only one
            if ticket["status"] != "selected" or (job, ticket["round"]) == skipped:
                time.sleep(min(60.0, float(ticket.get("retry_after", 1.0))))
                continue
            try:
                if version != (job, ticket["base_version"]):
                    params, number = self.model(ticket)
                    version = job, number
                made = train(params, ticket.get("config", {}), ticket["round"])
            except Problem as e:
                if e.code != "no-such-model":
                    raise
                made = "late"  # the round went by, its model is not kept any more
            if isinstance(made, str):
                outcome = "late"
            elif made is None:
                outcome, skipped = "skipped", (job, ticket["round"])
            else:
                outcome = self._report(ticket, made)
            result[{"accepted": "rounds"}.get(outcome, outcome)] += 1
            if on_round:
                on_round(ticket["round"], outcome)
        return result

    def _report(self, ticket, made):
        tensors, weight, *metrics = made
        try:
            self.update(ticket, tensors, weight, metrics[0] if metrics else None)
            return "accepted"
        except (RoundClosed, JobOver):  # the next check-in tells which
            time.sleep(random.uniform(0.0, 0.05))
            return "late"


def _decimal(value):
    """A finite number as the shortest decimal that reads back the same, without an exponent."""
    value = float(value)
    if value != value or value in (float("inf"), float("-inf")):
        raise ValueError("not a finite number")
    text = repr(value)
    if "e" in text:
        text = f"{value:.20f}".rstrip("0")
        text += "0" if text.endswith(".") else ""
    return text

