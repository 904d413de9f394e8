"""What a store allows without us, for stores.sh. Prints seconds, and how many requests it took.

plain.py get PORT CONCURRENCY     reads the end of every file that standard input names, then every file whole, so many at a
                                  time: a table's columns must be known before its rows can be read
plain.py pages PORT BUCKET PREFIX lists what is below the prefix, a page after the other
"""

import http.client
import queue
import re
import sys
import threading
import time
from urllib.parse import quote


def ask(connection, path, headers={}):
    connection.request("GET", path, headers=headers)
    answer = connection.getresponse()
    body = answer.read()
    if answer.status not in (200, 206):
        sys.exit(f"{path}: {answer.status} {body[:200]!r}")
    return body


def get(port, concurrency, paths, headers={}):
    waiting = queue.SimpleQueue()
    for path in paths:
        waiting.put(path)
    failed = []

    def work():
        connection = http.client.HTTPConnection("127.0.0.1", port)
        try:
            while True:
                ask(connection, waiting.get_nowait(), headers)
        except queue.Empty:
            pass
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=work) for _ in range(concurrency)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        sys.exit(str(failed[0]))
    return len(paths)


def pages(port, bucket, prefix):
    connection, token, count = http.client.HTTPConnection("127.0.0.1", port), None, 0
    while True:
        query = f"/{bucket}?list-type=2&max-keys=1000&prefix={quote(prefix, safe='')}"
        body = ask(connection, query + (f"&continuation-token={quote(token, safe='')}" if token else "")).decode()
        count += 1
        found = re.search("<NextContinuationToken>(.*?)</NextContinuationToken>", body)
        if not found:
            return count
        token = found[1]


begun = time.monotonic()
if sys.argv[1] == "get":
    port, concurrency, paths = int(sys.argv[2]), int(sys.argv[3]), sys.stdin.read().split()
    requests = get(port, concurrency, paths, {"Range": "bytes=-8"}) + get(port, concurrency, paths)
else:
    requests = pages(int(sys.argv[2]), sys.argv[3], sys.argv[4])
print(f"{time.monotonic() - begun:.2f} {requests}")
