# SPDX-License-Identifier: Apache-2.0
"""`tributary load` against a real node: its counts are the service's, its verdicts are exit codes."""
import json
import os
import subprocess

import pytest

import cluster

# What a machine that has no time for us may cause; each was tried again.
STARVED = {"request-timeout", "too-slow", "connection-lost", "no-answer-in-time"}
TOOL = os.path.join(cluster.BIN, "tributary")


@pytest.fixture(scope="module")
def node():
    with cluster.Node() as n:
        yield n


def load(node, folder, *words, limit=90):
    """(exit code, report or None, stderr)"""
    path = os.path.join(str(folder), "report.json")
    done = subprocess.run([TOOL, "load", "--dir", node.dir, "--report", path, *map(str, words)], capture_output=True,
                          text=True, timeout=limit)
    report = None
    if os.path.exists(path):
        with open(path) as f:
            report = json.load(f)
    return done.returncode, report, done.stdout + done.stderr


def jobs(node):
    return [j["metadata"]["id"] for j in cluster.call(node.api, "GET", "/v1/jobs")["items"]]


def honest(report):
    """Nothing lost, nothing twice, no error nobody intended; the model is what the receipts say."""
    counting = report["counting"]
    assert counting["checked"] and counting["ok"], report
    assert counting["lost"] == counting["double"] == counting["unresolved"] == 0, counting
    assert counting["receipts"] == counting["counted"] == report["totals"]["receipts"] > 0
    errors = report["errors"]["unintended"]
    assert set(errors) <= STARVED, report["errors"]
    assert sum(errors.values()) <= 2 + 0.1 * report["totals"]["uploads"], errors  # the exception, not how it works


def test_closed_loop_and_the_report(node, tmp_path):
    page = tmp_path / "page.html"
    code, r, text = load(node, tmp_path, "--clients", 12, "--goal", 6, "--updates", 60, "--download", "--html", page)
    assert code == 0, text
    honest(r)
    assert r["counting"]["model"]["checked"] and r["counting"]["model"]["ok"]
    assert r["totals"]["receipts"] >= 60 and r["rounds"]["published"] >= 10
    assert r["job"]["update_bytes"] > 4096 and r["job"]["mode"] == "sync"
    for name in ("receipt", "service", "checkin", "model"):
        v = r["latency"][name]
        assert v["count"] > 0 and v["p50_ms"] <= v["p99_ms"] <= v["p999_ms"] <= v["max_ms"] * 1.02
    assert r["latency"]["visit"] is None
    assert {p["name"] for p in r["server"]["processes"]} >= {"redis", "gateway", "agent", "orchestrator"}
    assert r["server"]["bytes_copied"] == 0 and r["server"]["updates_accepted"] == r["totals"]["receipts"]
    row = r["timeline"][-1]
    assert set(row) >= {"t", "receipts_per_s", "p50_ms", "p99_ms", "p999_ms", "rss_mb", "cpu_cores", "connections"}
    html = page.read_text()
    assert html.count("<svg") >= 5 and "http" not in html and r["job"]["id"] in html
    assert r["job"]["id"] not in jobs(node)  # it cleans up


def test_open_loop_on_an_asynchronous_job(node, tmp_path):
    code, r, text = load(node, tmp_path, "--mode", "async", "--clients", 200, "--goal", 20, "--arrivals", "poisson",
                         "--rate", 60, "--duration", 2)
    assert code == 0, text
    honest(r)
    assert r["counting"]["model"]["checked"]
    assert r["job"]["mode"] == "async" and r["plan"]["arrivals"] == "poisson"
    assert 1 <= r["totals"]["arrivals"] <= 60 * 1.6 * r["seconds"] + 40  # 60 a second, however slow this machine is
    assert r["latency"]["visit"]["count"] == r["totals"]["visits"] == r["totals"]["receipts"]


def test_a_trace_of_arrivals_ends_by_itself(node, tmp_path):
    trace = tmp_path / "trace"
    trace.write_text("".join(f"{i * 0.02:.2f}\n" for i in range(30)))
    code, r, text = load(node, tmp_path, "--mode", "async", "--clients", 40, "--goal", 10, "--arrivals",
                         f"trace:{trace}", "--threads", 2)
    assert code == 0, text
    honest(r)
    assert r["totals"]["arrivals"] == r["totals"]["receipts"] == 30


def test_misbehaviour_is_refused_and_counted_apart(node, tmp_path):
    code, r, text = load(node, tmp_path, "--mode", "async", "--clients", 40, "--goal", 20, "--updates", 250, "--die", 0.2,
                         "--duplicate", 0.3, "--corrupt", 0.3, "--hostile", 0.2, "--slow", 0.2, "--slow-factor", 3,
                         "--think", 0.02, "--bandwidth", "dsl=0.2,60000=0.1", "--seed", 3)
    assert code == 0, text
    honest(r)
    t = r["totals"]
    assert t["died_in_body"] > 0 and t["died_silently"] > 0 and t["replays"] > 0 and t["attacks"] > 0
    assert r["errors"]["intended"]["digest-mismatch"] >= t["corrupt"] > 0
    assert r["counting"]["model"]["ok"]


def test_limits_decide_the_exit_code(node, tmp_path):
    slo = tmp_path / "slo.json"
    few = ("--clients", 4, "--goal", 2, "--updates", 20, "--slo", slo)
    slo.write_text(json.dumps({"errors_max": 0, "goodput_min_per_s": 0.01, "rss_max_mb": 1e6, "rounds_min": 1}))
    code, r, text = load(node, tmp_path, *few)
    assert code == 0 and len(r["slo"]) == 4 and all(s["ok"] for s in r["slo"]), text
    slo.write_text(json.dumps({"errors_max": 0, "receipt_p99_ms": 0}))
    code, r, text = load(node, tmp_path, *few)
    assert code == 1 and r["exit"] == 1 and "MISSED receipt_p99_ms" in text
    slo.write_text(json.dumps({"receipt_p98_ms": 0}))
    assert load(node, tmp_path, *few)[0] == 2


def test_an_existing_job_and_somebody_elses_update(node, tmp_path):
    """The counts must not only be compared: an update that is not the tool's makes the run fail."""
    job = cluster.call(node.api, "POST", "/v1/jobs", {
        "apiVersion": "tributary/v1", "kind": "AggregationJob", "metadata": {"name": "theirs"},
        "spec": {"sync": {"goal": 3, "over_select": 4}, "stop": {"rounds": 1000000}}})["metadata"]["id"]
    model = cluster.body_of(cluster.np.zeros(600, "f4"))
    cluster.until("model taken", lambda: cluster.request(node.data, "PUT", f"/v1/jobs/{job}/models/0", model)[0]
                  in (200, 201))
    base = ("--job", job, "--clients", 6, "--duration", 1)
    code, r, text = load(node, tmp_path, *base)
    assert code == 0, text
    honest(r)
    assert r["job"]["update_bytes"] == len(model) and job in jobs(node)

    path = tmp_path / "other.json"
    tool = subprocess.Popen([TOOL, "load", "--dir", node.dir, "--report", path, *map(str, base[:-1]), "600"],
                            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        first = round_of(node, job)
        cluster.until("the tool is at it", lambda: round_of(node, job) > first + 2, 60)
        cluster.until("a stranger is accepted", lambda: take_part(node, job, model), 60, step=0.002)
        tool.terminate()
        assert tool.wait(60) == 6
    finally:
        tool.kill()
    counting = json.loads(path.read_text())["counting"]
    assert counting["double"] == 1 and counting["lost"] == 0 and not counting["ok"], counting


def round_of(node, job):
    return cluster.call(node.api, "GET", f"/v1/jobs/{job}")["status"]["round"]


def take_part(node, job, body):
    """Checks in as somebody else; reports when there is a place. True once accepted."""
    place = json.loads(cluster.request(node.data, "POST", f"/v1/jobs/{job}/checkins", {"client_id": "stranger"})[2])
    return place.get("status") == "selected" and cluster.request(
        node.data, "PUT", place["upload"]["url"], body, {
            "FL-Ticket": place["upload"]["ticket"], "FL-Client": "stranger", "FL-Round": str(place["round"]),
            "FL-Base-Version": str(place["base_version"]), "FL-Weight": "1"})[0] == 201


def test_mistakes_are_told(node, tmp_path):
    for words in (("--arrivals", "poisson"), ("--rate", 5), ("--model", "gpt-9"), ("--die", 1.5), ("--mode", "maybe"),
                  ("--bandwidth", "modem"), ("--model", "tiny", "--bytes", 40), ("--arrivals", "trace:/nowhere"),
                  ("--clients", 9000000)):
        code, r, text = load(node, tmp_path, *words)
        assert code == 2 and r is None and text.strip(), words
    assert load(node, tmp_path, "--job", "nobody")[0] == 4


def test_over_tls(tmp_path):
    certs = cluster.Certificates(tmp_path)
    cert, key = certs.make("node", "DNS:localhost,IP:127.0.0.1")
    cluster.TLS = certs.context()
    try:
        with cluster.Node("--tls-cert", cert, "--tls-key", key) as n:
            code, r, text = load(n, tmp_path, "--cacert", certs.ca + ".pem", "--clients", 6, "--goal", 3, "--updates",
                                 12, "--bytes", 3000000, "--download")
            assert code == 0, text
            honest(r)
            assert n.metric("gateway", "tributary_tls_handshakes_total") >= 6
            other = cluster.Certificates(tmp_path, "other")
            with open(os.path.join(tmp_path, "both.pem"), "w") as f:  # the API's CA is not what is tried here
                f.write(open(other.ca + ".pem").read())
            assert load(n, tmp_path, "--cacert", other.ca + ".pem", "--clients", 2)[0] == 3
    finally:
        cluster.TLS = None


def test_labels_by_share(node, tmp_path):
    spec = tmp_path / "spec.json"
    spec.write_text(json.dumps({"apiVersion": "tributary/v1", "kind": "AggregationJob", "metadata": {"name": "eu"}, "spec": {
        "sync": {"goal": 2}, "stop": {"rounds": 1000000}, "selection": {"labels": {"matchLabels": {"region": "eu"}}}}}))
    unwanted = node.metric("gateway", 'tributary_checkins_total{status="not-eligible"}')
    code, r, text = load(node, tmp_path, "--spec", spec, "--clients", 12, "--labels", "region=eu+ram-gb=8:0.5,region=us:0.3", "--updates",
                         20, "--duration", 30)
    assert code == 0, text
    honest(r)
    told = node.metric("gateway", 'tributary_checkins_total{status="not-eligible"}') - unwanted
    assert 1 <= told <= r["totals"]["waits"], (told, r["totals"])
    for wrong in ("region", "a=b:2", "=x:1", "a=b:0.6,a=c:0.6", "a=-:1"):
        code, _, text = load(node, tmp_path, "--labels", wrong, "--updates", 1)
        assert code == 2 and "--labels" in text, (wrong, code, text)
