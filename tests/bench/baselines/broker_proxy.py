# SPDX-License-Identifier: Apache-2.0
"""The proxy of the broker baseline (a serverless platform's sidecar): takes updates from the broker's list, two at a
time, and calls the HTTP function with each.

    broker_proxy.py BROKER FUNCTION SKIP     HOST:PORT of Redis and of aiohttp_server.py
"""
import socket
import sys
import threading


def connect(address):
    host, port = address.rsplit(":", 1)
    s = socket.create_connection((host, int(port)))
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return s


class Broker:
    """BLPOP with as few copies as Python allows: the value is received into one buffer that is used again."""

    def __init__(self, address):
        self.sock = connect(address)
        self.file = self.sock.makefile("rb", buffering=1 << 16)
        self.buffer = bytearray()

    def take(self):
        self.sock.sendall(b"*3\r\n$5\r\nBLPOP\r\n$7\r\nupdates\r\n$1\r\n0\r\n")
        head = self.file.readline()
        if head != b"*2\r\n":
            raise EOFError(head)
        name = int(self.file.readline()[1:])
        self.file.read(name + 2)
        size = int(self.file.readline()[1:])
        if len(self.buffer) < size:
            self.buffer = bytearray(size)
        view = memoryview(self.buffer)[:size]
        at = 0
        while at < size:
            n = self.file.readinto(view[at:])
            if not n:
                raise EOFError
            at += n
        self.file.read(2)
        return view


def work(broker, function, skip):
    source, sink = Broker(broker), connect(function)
    answers = sink.makefile("rb")
    while True:
        update = source.take()
        sink.sendall(f"PUT /updates/0 HTTP/1.1\r\nHost: function\r\nFL-Skip: {skip}\r\n"
                     f"Content-Length: {len(update)}\r\n\r\n".encode())
        sink.sendall(update)
        status = answers.readline()
        length = 0
        while (line := answers.readline()) not in (b"\r\n", b""):
            if line.lower().startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        answers.read(length)
        if b" 201 " not in status:
            raise RuntimeError(status)


if __name__ == "__main__":
    crew = [threading.Thread(target=work, args=sys.argv[1:]) for _ in range(2)]
    for t in crew:
        t.start()
    for t in crew:
        t.join()
