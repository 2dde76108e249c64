# SPDX-License-Identifier: Apache-2.0
"""The Python client: safetensors, its behaviour when a scripted server misbehaves, and a whole job
against the real service."""
import json
import os
import socket
import struct
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

import lib
from tributary import (Admin, Client, JobOver, Problem, RoundClosed, SafetensorsError, Tensor,
                       Unreachable, dump, load, to_array)
from tributary import _client


# ---- safetensors ----

def joined(tensors):
    return b"".join(bytes(b) for b in dump(tensors))


def test_dump_and_load_agree_for_every_shape_and_dtype():
    rng = np.random.default_rng(1)
    tensors = {"a": rng.standard_normal((3, 4)).astype("<f4"), "b.c": np.zeros((0, 5), "<f4"),
               "scalar": np.float32(2.5), "half": np.arange(7, dtype="<f2"),
               "big-endian": np.arange(3, dtype=">f4"), "i8": np.arange(-3, 3, dtype="i1"),
               "strided": np.arange(10, dtype="<f4")[::2], "t": np.eye(3, dtype="<f8").T,
               "bool": np.array([True, False]), "u64": np.array([2 ** 63], "<u8")}
    body = joined(tensors)
    assert struct.unpack("<Q", body[:8])[0] % 8 == 0
    back = {k: to_array(v) for k, v in load(body).items()}
    assert set(back) == set(tensors)
    for k, v in tensors.items():
        assert back[k].shape == np.shape(v) and np.array_equal(back[k], v), k


def test_dump_does_not_copy_contiguous_arrays():
    a = np.arange(1000, dtype="<f4")
    buffers = dump({"a": a})
    assert np.shares_memory(np.frombuffer(buffers[1], "u1"), a)


def test_plain_tensors_without_numpy_arrays():
    t = Tensor("F32", (2, 2), memoryview(struct.pack("<4f", 1, 2, 3, 4)))
    assert load(joined({"x": t}))["x"].data.tobytes() == t.data.tobytes()
    with pytest.raises(SafetensorsError):
        dump({"x": ("F32", (3, 2), b"\0" * 16)})
    with pytest.raises(SafetensorsError):
        dump({"x": [1.0, 2.0]})
    with pytest.raises(SafetensorsError):
        dump({"bad\nname": np.zeros(1, "<f4")})


def file_of(header, data=b"", pad=b""):
    text = (header if isinstance(header, bytes) else json.dumps(header).encode()) + pad
    return struct.pack("<Q", len(text)) + text + data


def entry(begin, end, shape=None, dtype="F32"):
    return {"dtype": dtype, "shape": [(end - begin) // 4] if shape is None else shape,
            "data_offsets": [begin, end]}


@pytest.mark.parametrize("body", (
    b"", b"\0" * 9, struct.pack("<Q", 1 << 40) + b"{}", file_of({}, b"x"),
    file_of({"a": entry(4, 8)}, b"\0" * 8),  # hole at the start
    file_of({"a": entry(0, 4), "b": entry(0, 4)}, b"\0" * 4),  # overlap
    file_of({"a": entry(0, 8)}, b"\0" * 4),  # past the end
    file_of({"a": entry(0, 4)}, b"\0" * 8),  # bytes left
    file_of({"a": entry(0, 4, [2])}, b"\0" * 4),
    file_of({"a": entry(0, 4, [-1, -1])}, b"\0" * 4),
    file_of({"a": entry(0, 4, [True])}, b"\0" * 4),
    file_of({"a": entry(0, 4, [1.0])}, b"\0" * 4),
    file_of({"a": entry(0, 4, [1] * 9)}, b"\0" * 4),
    file_of({"a": {**entry(0, 4), "x": 1}}, b"\0" * 4),
    file_of({"a": entry(0, 4, dtype="F99")}, b"\0" * 4),
    file_of(b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},'
            b'"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}', b"\0" * 4),
    file_of({"\u00e9": entry(0, 4)}, b"\0" * 4), file_of({"": entry(0, 4)}, b"\0" * 4),
    file_of(b" {}"), file_of(b"[]"), file_of({}, pad=b"\n"), file_of(b"{" * 5000),
))
def test_malformed_files_are_refused(body):
    with pytest.raises(SafetensorsError):
        load(body)


# ---- against a scripted server ----

class Script:
    """Answers one request per step: each step is called with (connection, method, path, headers,
    body) and returns the bytes to answer with, or None to drop the connection."""

    def __init__(self, *steps, host="127.0.0.1"):
        self.steps, self.seen = list(steps), []
        self.listener = socket.create_server((host, 0))
        self.url = f"http://{host}:{self.listener.getsockname()[1]}"
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        while True:
            try:
                connection = self.listener.accept()[0]
            except OSError:
                return
            with connection:
                self.serve(connection)

    def serve(self, connection):
        stream = connection.makefile("rb")
        while self.steps:
            line = stream.readline()
            if not line:
                return
            method, path, _ = line.decode().split()
            headers = {}
            while (line := stream.readline().strip()):
                name, _, value = line.decode().partition(":")
                headers[name.lower()] = value.strip()
            step = self.steps.pop(0)
            early = getattr(step, "early", False)
            body = b"" if early else stream.read(int(headers.get("content-length", 0)))
            self.seen.append((method, path, headers, body))
            answer = step(method, path, headers, body)
            if answer is None:
                return
            connection.sendall(answer)
            if early:
                connection.shutdown(socket.SHUT_WR)
                time.sleep(0.2)
                return
            if b"Connection: close" in answer:
                return

    def close(self):
        self.listener.close()


def answer(status, body=None, **headers):
    data = json.dumps(body).encode() if not isinstance(body, bytes) else body
    head = "".join(f"{k.replace('_', '-')}: {v}\r\n" for k, v in headers.items())
    return lambda *_: (f"HTTP/1.1 {status} X\r\nContent-Length: {len(data)}\r\n{head}\r\n".encode()
                       + data)


def drop(*_):
    return None


TICKET = {"status": "selected", "round": 3, "base_version": 2, "config": {"lr": 1},
          "model": {"url": "/v1/jobs/j/models/2"},
          "upload": {"url": "/v1/jobs/j/updates/upd_1", "ticket": "T", "dtypes": ["F32"]}}
UPDATE = {"w": np.ones(4, "<f4")}


@pytest.fixture
def script():
    made = []

    def make(*steps, **options):
        s = Script(*steps)
        made.append(s)
        return s, Client(s.url, "j", "c-1", token="secret", **{"retry_for": 10, **options})
    yield make
    for s in made:
        s.close()


def test_update_sends_what_the_service_needs(script):
    s, client = script(answer(201, {"state": "accepted"}))
    receipt = client.update(TICKET, {"w": np.ones(4)}, 12.5, {"loss": 0.5})
    method, path, headers, body = s.seen[0]
    assert receipt == {"state": "accepted"} and (method, path) == ("PUT", TICKET["upload"]["url"])
    assert headers["fl-ticket"] == "T" and headers["fl-client"] == "c-1"
    assert headers["fl-round"] == "3" and headers["fl-base-version"] == "2"
    assert headers["fl-weight"] == "12.5" and headers["fl-metrics"] == "loss=0.5"
    assert headers["authorization"] == "Bearer secret"
    assert headers["content-length"] == str(len(body))
    assert load(body)["w"].dtype == "F32"  # float64 given, float32 wanted
    assert ("fl-checksum" in headers) == (_client._crc32c is not None)


def test_checksum_is_of_the_whole_body(script, monkeypatch):
    def crc(data, value=0):
        value ^= 0xFFFFFFFF
        for byte in bytes(data):
            value ^= byte
            for _ in range(8):
                value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        return value ^ 0xFFFFFFFF
    assert crc(b"123456789") == 0xE3069283
    monkeypatch.setattr(_client, "_crc32c", crc)
    s, client = script(answer(201, {}))
    client.update(TICKET, UPDATE, 1)
    assert s.seen[0][2]["fl-checksum"] == f"crc32c={crc(s.seen[0][3]):08x}"


def test_busy_service_is_asked_again_after_the_time_it_wishes(script):
    s, client = script(answer(503, {"code": "arena-full", "retry_after": 0.4}, Retry_After="1"),
                       answer(429, {"code": "throttled"}, Retry_After="0"),
                       answer(201, {"state": "accepted"}))
    began = time.monotonic()
    assert client.update(TICKET, UPDATE, 1)["state"] == "accepted"
    assert 0.4 <= time.monotonic() - began < 2
    assert len({body for *_, body in s.seen}) == 1 and len(s.seen) == 3


def test_lost_connections_are_made_again_with_the_same_content(script):
    s, client = script(drop, drop, answer(200, {"state": "accepted", "replay": True}))
    assert client.update(TICKET, UPDATE, 1)["replay"]
    assert len(s.seen) == 3 and s.seen[0][1:] == s.seen[2][1:]


def test_an_idle_connection_that_was_closed_is_no_failure(script):
    s, client = script(answer(200, {"status": "wait"}), drop, answer(200, {"status": "done"}))
    client._http.retry_for = 0
    assert client.checkin()["status"] == "wait"
    assert client.checkin()["status"] == "done"
    assert s.seen[0][2]["prefer"] == "wait=25"


def test_an_early_refusal_is_read_although_the_body_was_not_taken(script):
    refuse = answer(409, {"code": "round-closed", "detail": "round 3 is over"})

    def early(*args):
        return refuse(*args)
    early.early = True
    s, client = script(early)
    with pytest.raises(RoundClosed) as e:
        client.update(TICKET, {"w": np.ones(8 << 20, "<f4")}, 1)
    assert e.value.status == 409 and e.value.detail == "round 3 is over"


@pytest.mark.parametrize("status, code, kind", (
    (409, "round-closed", RoundClosed), (409, "job-not-running", JobOver),
    (422, "layout-mismatch", Problem), (403, "ticket-expired", Problem), (500, "internal", Problem),
))
def test_refusals_are_told_and_not_repeated(script, status, code, kind):
    s, client = script(answer(status, {"code": code, "detail": "why"}))
    with pytest.raises(kind, match="why") as e:
        client.update(TICKET, UPDATE, 1)
    assert e.value.code == code and len(s.seen) == 1


def test_it_gives_up_in_time(script):
    s, client = script(*[drop] * 100, retry_for=1.0)
    began = time.monotonic()
    with pytest.raises(Unreachable):
        client.checkin()
    assert time.monotonic() - began < 3
    s.close()
    with pytest.raises(Unreachable):
        Client("http://127.0.0.1:1", "j", "c", retry_for=0.2).checkin()


def test_redirects_are_followed_and_the_token_stays_home(script):
    other = Script(answer(200, {"status": "done"}), host="127.0.0.2")
    s, client = script(answer(307, b"", Location=other.url + "/v1/jobs/j/checkins"))
    assert client.checkin()["status"] == "done"
    assert "authorization" in s.seen[0][2] and "authorization" not in other.seen[0][2]
    assert other.seen[0][0] == "POST" and other.seen[0][3] == s.seen[0][3]
    other.close()


def test_run_takes_part_until_the_job_is_over(script):
    model = joined({"w": np.zeros(4, "<f4")})
    s, client = script(
        answer(200, {"status": "wait", "retry_after": 0.01}), answer(200, TICKET),
        answer(200, model, FL_Version=2), answer(201, {}),
        answer(200, {**TICKET, "round": 4}), answer(409, {"code": "round-closed"}),
        answer(200, {**TICKET, "round": 5}),
        answer(200, {"status": "done", "state": "finished"}))
    told = []

    def train(params, config, number):
        assert config == {"lr": 1} and not params["w"].flags.writeable
        return None if number == 5 else ({"w": params["w"] + number}, 2)
    result = client.run(train, on_round=lambda *a: told.append(a))
    assert result == {"rounds": 1, "late": 1, "skipped": 1, "state": "finished"}
    assert told == [(3, "accepted"), (4, "late"), (5, "skipped")]
    assert to_array(load(s.seen[3][3])["w"])[0] == 3


@pytest.mark.parametrize("value, text", ((1, "1.0"), (0.1, "0.1"), (1e-7, "0.0000001"),
                                         (512, "512.0"), (1e16, "10000000000000000.0")))
def test_weights_are_plain_decimals(value, text):
    assert _client._decimal(value).startswith(text) and "e" not in _client._decimal(value)
    assert float(_client._decimal(value)) == value
    for bad in (float("nan"), float("inf")):
        with pytest.raises(ValueError):
            _client._decimal(bad)


def test_events_resume_where_they_broke_off():
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
    s = Script(lambda *_: head + b': hi\n\nid: 1-0\nevent: round.open\ndata: {"n":1}\n\n',
               lambda *_: head + b'id: 2-0\r\ndata: {"t":"job.finished"}\r\n\r\nid: 3-0\ndata: {}\n\n')
    events = list(Admin(s.url).events("j", timeout=20))
    assert [e["type"] for e in events] == ["round.open", "job.finished"]
    assert "last-event-id" not in s.seen[0][2] and s.seen[1][2]["last-event-id"] == "1-0"
    s.close()


def test_it_works_without_numpy(tmp_path):
    (tmp_path / "numpy.py").write_text("raise ImportError('hidden')")
    code = ("import tributary as t, struct\n"
            "x = t.Tensor('F32', (2,), memoryview(struct.pack('<2f', 1, 2)))\n"
            "b = b''.join(bytes(p) for p in t.dump({'w': x}))\n"
            "assert t.to_array(t.load(b)['w']).data.tobytes() == x.data.tobytes()\n")
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30,
                   env={**os.environ, "PYTHONPATH": f"{tmp_path}:{lib.ROOT}/client/python"})


# ---- against the real service ----

SPEC = {"sync": {"goal": 3, "quorum": 2, "deadline_s": 30}, "stop": {"rounds": 2},
        "client_config": {"step": 0.5}}


def model(value=1.0):
    return {"w": np.full((3, 5), value, "<f4"), "b": np.zeros(7, "<f4")}


def test_a_whole_job_is_averaged_by_weight(shared_service):
    s = shared_service
    job = s.new_job(model(), SPEC)
    weights, results = [1.0, 2.0, 5.0], [None] * 3

    def take_part(i):
        def train(params, config, number):
            assert config["step"] == 0.5
            return {k: np.full(v.shape, (i + 1) * number, "<f4") for k, v in params.items()}, \
                weights[i]
        with s.client(job, f"c-{i}") as client:
            results[i] = client.run(train, wait=5)

    threads = [threading.Thread(target=take_part, args=(i,)) for i in range(3)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(60 * lib.SLOW)
    assert results == [{"rounds": 2, "late": 0, "skipped": 0, "state": "finished"}] * 3
    with s.admin_client() as admin:
        assert admin.wait(job, timeout=20)["status"]["phase"] == "Succeeded"
        rounds = sorted(admin.rounds(job), key=lambda r: r["round"])
        assert [(r["round"], r["accepted"], r["version"]) for r in rounds] == [(1, 3, 1), (2, 3, 2)]
        mean = sum(w * (i + 1) for i, w in enumerate(weights)) / sum(weights)
        with s.client(job, "reader") as reader:
            for version, expected in ((0, 1.0), (1, 1 + mean), (2, 1 + 3 * mean), ("latest", 1 + 3 * mean)):
                tensors, number = reader.model(version)
                assert number == (2 if version == "latest" else version)
                assert np.all(tensors["w"] == np.float32(expected))
        types = [e["type"] for e in admin.events(job, last_id="0-0", timeout=10)]
        assert types.count("model.published") == 3 and types[-1] == "job.finished"
        admin.delete(job)
        with pytest.raises(Problem) as e:
            admin.get(job)
        assert e.value.status == 404


def test_receipts_replays_and_refusals(shared_service):
    s = shared_service
    job = s.new_job(model(), SPEC)
    with s.client(job, "c-1") as client, s.admin_client() as admin:
        ticket = client.checkin()
        assert ticket["status"] == "selected" and ticket["base_version"] == 0
        good = {k: np.ones_like(v) for k, v in model().items()}
        with pytest.raises(Problem) as e:
            client.update(ticket, {"w": good["w"]}, 1)
        assert e.value.status == 422
        with pytest.raises(Problem) as e:
            client.update(ticket, {**good, "b": np.full(7, np.nan, "<f4")}, 1)
        assert e.value.code == "non-finite"
        receipt = client.update(ticket, good, 2, {"loss": 0.25})
        assert receipt["state"] == "accepted" and receipt["weight"] == 2.0
        again = client.update(ticket, good, 2)
        assert again["digest"] == receipt["digest"] and again["update"] == receipt["update"]
        with pytest.raises(Problem) as e:
            client.update(ticket, {**good, "b": np.full(7, 3, "<f4")}, 2)
        assert e.value.code == "already-reported"
        assert client.checkin(wait=0)["status"] == "wait"
        assert admin.get(job)["status"]["progress"]["accepted"] == 1
        with pytest.raises(Problem) as e:
            admin.upload_initial_model(job, model(2.0))
        assert e.value.status == 409
        admin.upload_initial_model(job, model())
        late = s.client(job, "c-2")
        late_ticket = late.checkin()
        admin.stop(job)
        assert client.checkin(wait=0)["status"] == "done"
        with pytest.raises((RoundClosed, JobOver)):
            late.update(late_ticket, good, 2)


def test_admin_tells_what_is_wrong_with_a_spec(shared_service):
    with shared_service.admin_client() as admin:
        with pytest.raises(Problem) as e:
            admin.submit({"mode": "hourly"})
        assert e.value.code == "invalid-spec" and e.value.body["errors"][0]["pointer"]
        with pytest.raises(Problem) as e:
            admin.get("job_00000000000000000000000000")
        assert e.value.status == 404
