# SPDX-License-Identifier: Apache-2.0
"""Baseline: a gRPC streaming server in Python with numpy; a thread per stream, folds each piece as it is read.

    grpc_server.py ELEMENTS UPDATES      prints {"port":..}, then {"published_ns":..} per UPDATES
"""
import os
import sys
from concurrent import futures

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "../../../build/bench"))  # aggregate_pb2.py

import aggregate_pb2  # noqa: E402
import grpc  # noqa: E402
from average import Average, tell, until_the_bench_has_gone  # noqa: E402


def main():
    average = Average(int(sys.argv[1]), int(sys.argv[2]))

    def upload(pieces, context):
        at = 0
        for piece in pieces:
            at += average.add(at, piece.data)
        if at != average.elements:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "short")
        average.finish()
        return aggregate_pb2.Receipt(values=at)

    method = grpc.stream_unary_rpc_method_handler(upload, aggregate_pb2.Piece.FromString,
                                                  aggregate_pb2.Receipt.SerializeToString)
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=64), options=[("grpc.max_receive_message_length", 8 << 20)])
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("bench.Aggregate", {"Upload": method}),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    tell(port=port)
    until_the_bench_has_gone()
    os._exit(0)


if __name__ == "__main__":
    main()
