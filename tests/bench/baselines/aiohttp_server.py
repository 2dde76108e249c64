# SPDX-License-Identifier: Apache-2.0
"""Baseline: aiohttp + numpy (and uvloop when it is there): bodies are folded piece by piece as they arrive.
Also the function behind the broker baseline.

    aiohttp_server.py ELEMENTS UPDATES   prints {"port":..}, then {"published_ns":..} per UPDATES
"""
import asyncio
import os
import sys
import threading

from aiohttp import web
from average import Average, tell, until_the_bench_has_gone

try:
    import uvloop
except ImportError:
    uvloop = None


async def serve(average):
    async def upload(request):
        skip, at, rest = int(request.headers.get("FL-Skip", "0")), 0, b""
        async for data in request.content.iter_any():
            if skip:
                cut = min(skip, len(data))
                skip -= cut
                data = data[cut:]
            if rest:
                data = rest + data
            whole = len(data) & ~3
            rest = data[whole:]
            if whole:
                at += average.add(at, memoryview(data)[:whole])
        if at != average.elements or rest:
            return web.Response(status=422)
        average.finish()
        return web.Response(status=201)

    app = web.Application(client_max_size=1 << 40)
    app.router.add_put("/updates/{id}", upload)
    runner = web.AppRunner(app, access_log=None, read_bufsize=1 << 20)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, backlog=1024)
    await site.start()
    tell(port=site._server.sockets[0].getsockname()[1])
    await asyncio.Event().wait()


def watch():
    until_the_bench_has_gone()
    os._exit(0)


if __name__ == "__main__":
    if uvloop:
        uvloop.install()
    threading.Thread(target=watch, daemon=True).start()
    asyncio.run(serve(Average(int(sys.argv[1]), int(sys.argv[2]))))
