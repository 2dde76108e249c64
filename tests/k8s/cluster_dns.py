#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Names of Services and of their pods for clusters of tests/k8s/kube-up, which have no CoreDNS: A records of what the
API server lists, over UDP and TCP. Everything else has no address.

    cluster_dns.py ADDRESS PORT KUBECTL KUBECONFIG"""
import json
import socketserver
import struct
import subprocess
import sys
import threading
import time

DOMAIN = "cluster.local"
names = {}
asked = {"at": 0.0}


def listed(kubectl, config):
    out = subprocess.run([kubectl, "--kubeconfig", config, "get", "services,endpointslices", "-A", "-o", "json"],
                         capture_output=True, text=True, timeout=30, check=True).stdout
    found, headless = {}, {}
    items = json.loads(out)["items"]
    for o in items:
        if o["kind"] == "Service":
            key = f"{o['metadata']['name']}.{o['metadata']['namespace']}.svc.{DOMAIN}"
            if o["spec"].get("clusterIP") == "None":
                headless[key] = o["spec"].get("publishNotReadyAddresses", False)
                found.setdefault(key, [])
            elif o["spec"].get("clusterIP"):
                found[key] = [o["spec"]["clusterIP"]]
    for o in items:
        service = o["metadata"].get("labels", {}).get("kubernetes.io/service-name")
        key = f"{service}.{o['metadata']['namespace']}.svc.{DOMAIN}"
        if o["kind"] != "EndpointSlice" or key not in headless:
            continue
        for e in o.get("endpoints") or []:
            if headless[key] or e.get("conditions", {}).get("ready", True):
                found[key] += e["addresses"]
                if e.get("hostname"):
                    found[f"{e['hostname']}.{key}"] = e["addresses"]
    return found


def keep_listing(kubectl, config):
    while True:
        try:
            fresh = listed(kubectl, config)
            names.clear()
            names.update(fresh)
        except (subprocess.SubprocessError, ValueError, KeyError):
            pass
        time.sleep(1)


def answer(query):
    """A response to a query of one question."""
    at, labels = 12, []
    while query[at]:
        labels.append(query[at + 1:at + 1 + query[at]].decode("ascii", "replace").lower())
        at += query[at] + 1
    kind = struct.unpack(">H", query[at + 1:at + 3])[0]
    question = query[12:at + 5]
    name = ".".join(labels)
    known = names.get(name)
    addresses = known if known and kind == 1 else []
    code = 0 if known is not None else 3
    head = query[:2] + struct.pack(">HHHHH", 0x8580 | code, 1, len(addresses), 0, 0)
    return head + question + b"".join(
        struct.pack(">HHHIH", 0xC00C, 1, 1, 2, 4) + bytes(int(p) for p in a.split(".")) for a in addresses)


class Datagram(socketserver.BaseRequestHandler):
    def handle(self):
        data, sock = self.request
        try:
            sock.sendto(answer(data), self.client_address)
        except (IndexError, struct.error):
            pass


class Stream(socketserver.StreamRequestHandler):
    def handle(self):
        try:
            size = struct.unpack(">H", self.rfile.read(2))[0]
            reply = answer(self.rfile.read(size))
            self.wfile.write(struct.pack(">H", len(reply)) + reply)
        except (IndexError, struct.error):
            pass


def main():
    address, port, kubectl, config = sys.argv[1:5]
    socketserver.ThreadingTCPServer.allow_reuse_address = True
    threading.Thread(target=keep_listing, args=(kubectl, config), daemon=True).start()
    tcp = socketserver.ThreadingTCPServer((address, int(port)), Stream)
    threading.Thread(target=tcp.serve_forever, daemon=True).start()
    socketserver.ThreadingUDPServer((address, int(port)), Datagram).serve_forever()


if __name__ == "__main__":
    main()
