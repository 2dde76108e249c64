# SPDX-License-Identifier: Apache-2.0
"""Baseline: a gRPC streaming server in Python with numpy; a thread per stream, folds each piece as it is read.

    grpc_server.py ELEMENTS UPDATES      prints {"port":..}, then {"published_ns":..} per UPDATES

The bytes are folded where gRPC's message has them, no message is parsed; large frames and reads, as the C++ server.
"""
import os
import sys
from concurrent import futures

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "../../../build/bench"))  # aggregate_pb2.py

import aggregate_pb2  # noqa: E402
import grpc  # noqa: E402
from average import Average, tell, until_the_bench_has_gone  # noqa: E402


OPTIONS = [("grpc.max_receive_message_length", 8 << 20), ("grpc.http2.max_frame_size", (16 << 20) - 1),
           ("grpc.http2.lookahead_bytes", 8 << 20), ("grpc.http2.bdp_probe", 0),
           *((f"grpc.experimental.tcp_{which}read_chunk_size", 1 << 20) for which in ("", "min_", "max_"))]


def floats_of(piece):
    """The bytes of a Piece: what comes after its tag and length."""
    at, size, shift = 1, 0, 0
    while True:
        byte = piece[at]
        size |= (byte & 0x7f) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            break
    if piece[0] != 0x0a or at + size != len(piece):
        raise ValueError("no piece")
    return memoryview(piece)[at:]


def main():
    average = Average(int(sys.argv[1]), int(sys.argv[2]))

    def upload(pieces, context):
        at = 0
        for piece in pieces:
            at += average.add(at, floats_of(piece))
        if at != average.elements:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "short")
        average.finish()
        return aggregate_pb2.Receipt(values=at)

    method = grpc.stream_unary_rpc_method_handler(upload, None, aggregate_pb2.Receipt.SerializeToString)
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=64), options=OPTIONS)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("bench.Aggregate", {"Upload": method}),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    tell(port=port)
    until_the_bench_has_gone()
    os._exit(0)


if __name__ == "__main__":
    main()
