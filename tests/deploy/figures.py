"""Measures what docs/operations.md reckons with, and no `ebseg bench` prints; takes half a minute.

.venv/bin/python -m tests.deploy.figures

Pictures as JPEGs with the grain of a photo, decoded as the service does; class names of EBSeg-base as the
service writes them to a Redis of its own, and asks for them; time series of a service after a request. Times
are medians.
"""

import asyncio
import hashlib
import statistics
import time
from collections.abc import Sequence

import httpx
import numpy as np
import redis

from model.network.config import VARIANTS
from service.bench.pictures import jpeg, pictures
from service.caches.cache_values import encode
from service.caches.redis_store import RedisStore
from service.caches.text_cache import ENTRY_BYTES, PREFIX
from service.caches.write_behind import Change
from service.observability.metrics import Metrics
from service.segmentation.decode import decode
from tests.service.caches.redis_server import redis_server
from tests.service.fakes import PNG, live

SIZES = ((640, 480), (853, 640), (1600, 1200), (4000, 3000))
MOST_PIXELS = 50_000_000
NAMES = 20_000
TTL_S = 2_592_000.0  # a value with a time to live takes more
LISTS = (20, 150)
CALLS = 300
WIDTH = VARIANTS["base"].clip.joint_width


def decoding(runs: int = 7) -> None:
    for width, height in SIZES:
        (picture,) = pictures(width, height, 1)
        data = jpeg(picture)
        times = []
        for _ in range(runs):
            began = time.perf_counter()
            decode(data, max_pixels=MOST_PIXELS)
            times.append(time.perf_counter() - began)
        ms = 1000 * statistics.median(times)
        print(f"decoding {width} x {height}, {len(data) / 1e6:.2f} MB: {ms:.1f} ms")


def keys_of(count: int) -> list[bytes]:
    return [PREFIX + hashlib.sha256(str(number).encode()).hexdigest().encode() for number in range(count)]


def filling(client: redis.Redis, keys: Sequence[bytes]) -> None:
    row = np.zeros(WIDTH, np.float32)
    row[0] = 1
    before = int(client.info("memory")["used_memory"])
    with client.pipeline(transaction=False) as pipeline:
        for key in keys:
            value = encode(bytes.fromhex(key.removeprefix(PREFIX).decode()), row)
            pipeline.execute_command(*Change(value=value, ttl_s=TTL_S, cache="text").command(key))
        pipeline.execute()
    used = int(client.info("memory")["used_memory"]) - before
    print(
        f"a class name of {WIDTH} numbers: {len(value)} bytes sent, {used / len(keys):.0f} in Redis", end=""
    )
    print(f", {row.nbytes + ENTRY_BYTES} in the process")


async def asking(url: str, client: redis.Redis, keys: Sequence[bytes]) -> None:
    store = RedisStore(url, timeout_s=1.0, metrics=Metrics())
    await store.start()
    try:
        for length in LISTS:
            times, before = [], cpu_seconds(client)
            for call in range(CALLS):
                start = call * length % (len(keys) - length)
                began = time.perf_counter()
                found = await store.get_many(keys[start : start + length], cache="text")
                times.append(time.perf_counter() - began)
                assert found is not None
                assert None not in found
            ms, busy = 1000 * statistics.median(times), 1000 * (cpu_seconds(client) - before) / CALLS
            print(f"asking Redis for {length} names: {ms:.2f} ms, {busy:.2f} ms of Redis' core")
    finally:
        await store.stop()


def cpu_seconds(client: redis.Redis) -> float:
    used = client.info("cpu")
    return float(used["used_cpu_user"]) + float(used["used_cpu_sys"])


def series() -> None:
    with live() as (url, _), httpx.Client(base_url=url) as client:
        answer = client.post("/v1/segment", files={"image": PNG}, data={"classes": "sky,tree"})
        assert answer.status_code == 200, answer.text
        text = client.get("/metrics").text
    print(f"time series: {sum(not line.startswith('#') for line in text.splitlines())}")


def main() -> None:
    decoding()
    with redis_server() as server:
        client = server.client()
        keys = keys_of(NAMES)
        filling(client, keys)
        asyncio.run(asking(server.url, client, keys))
    series()


if __name__ == "__main__":
    main()
