"""A proxy that adds latency to every request: slow.py PORT UPSTREAM_PORT SECONDS LOG

One connection to the store for each of the program's; requests are forwarded as they come. LOG gets a line for each. What
the store answered to a GET once is answered from memory afterwards: a store on this machine would compete for its cores,
which stores elsewhere do not.
"""

import asyncio
import sys

PORT, UPSTREAM, SECONDS, LOG = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), sys.argv[4]


async def head(reader):
    try:
        return await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, ConnectionError):
        return None


def length(text):
    for line in text.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    return None


async def body(reader, writer, text, answer):
    size = length(text)
    if size is None and b"transfer-encoding: chunked" in text.lower():
        while True:
            line = await reader.readline()
            count = int(line.split(b";")[0], 16)
            writer.write(line + await reader.readexactly(count + 2))
            await writer.drain()
            if count == 0:
                return True
    if size is None and answer:
        while data := await reader.read(1 << 18):
            writer.write(data)
            await writer.drain()
        return False
    left = size or 0
    while left > 0:
        data = await reader.read(min(left, 1 << 18))
        if not data:
            return False
        writer.write(data)
        await writer.drain()
        left -= len(data)
    return True


class Remembering:
    """A writer that keeps what is written."""

    def __init__(self, writer):
        self.writer, self.pieces = writer, []

    def write(self, data):
        self.pieces.append(data)
        self.writer.write(data)

    async def drain(self):
        await self.writer.drain()


answers = {}


def question(request):
    """What decides about the answer to a GET; None for another request."""
    lines = request.split(b"\r\n")
    ranges = [line.strip() for line in lines if line.lower().startswith(b"range:")]
    return (lines[0], *ranges) if request.startswith(b"GET ") else None


async def serve(reader, writer):
    store_reader, store_writer = await asyncio.open_connection("127.0.0.1", UPSTREAM, limit=1 << 20)
    try:
        while (request := await head(reader)) is not None:
            with open(LOG, "ab") as log:
                log.write(request.split(b"\r\n")[0] + b"\n")
            await asyncio.sleep(SECONDS)
            asked = question(request)
            if asked in answers:
                writer.write(answers[asked])
                await writer.drain()
                continue
            store_writer.write(request)
            await body(reader, store_writer, request, False)
            await store_writer.drain()
            answer = await head(store_reader)
            if answer is None:
                break
            given = Remembering(writer)
            given.write(answer)
            status = answer.split(b" ")[1]
            bodiless = request.startswith(b"HEAD") or status in (b"204", b"304")
            if not bodiless and not await body(store_reader, given, answer, True):
                break
            if asked and status in (b"200", b"206"):
                answers[asked] = b"".join(given.pieces)
            await writer.drain()
    except ConnectionError:
        pass
    finally:
        writer.close()
        store_writer.close()


async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", PORT, limit=1 << 20)
    async with server:
        await server.serve_forever()


asyncio.run(main())
