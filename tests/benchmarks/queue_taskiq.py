"""The taskiq application of the queue benchmark, named on its workers' command line."""

import os
import time

from taskiq_redis import ListQueueBroker, RedisAsyncResultBackend, RedisStreamBroker

URL = os.environ["EXPLAIND_REDIS_URL"]
BROKERS = {"stream": RedisStreamBroker, "list": ListQueueBroker}

broker = BROKERS[os.environ["BENCHMARK_BROKER"]](URL).with_result_backend(
    RedisAsyncResultBackend(URL, result_ex_time=600)
)


@broker.task
async def moment() -> float:
    return time.time()
