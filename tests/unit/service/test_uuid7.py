import os
import threading
import time
import uuid

from service.uuid7 import RandomBuffer, Uuid7Source, uuid7


def test_it_is_a_uuid_of_version_seven() -> None:
    made = uuid.UUID(uuid7())
    assert made.version == 7
    assert made.variant == uuid.RFC_4122


def test_it_carries_the_time_in_milliseconds() -> None:
    before = time.time_ns() // 1_000_000
    made = int(uuid7().replace("-", "")[:12], 16)
    assert before <= made <= time.time_ns() // 1_000_000 + 1


def test_the_example_of_the_rfc() -> None:
    source = Uuid7Source(
        clock_nanoseconds=lambda: 0x017F22E279B0 * 1_000_000 + 798_000,
        random_bytes=lambda n: bytes.fromhex("8c4dc0c0c07398f0")[:n],
    )
    assert source() == "017f22e2-79b0-7cc4-88c4-dc0c0c07398f"


def test_they_sort_in_the_order_of_making() -> None:
    made = [uuid7() for _ in range(20_000)]
    assert made == sorted(set(made))


def test_a_clock_that_goes_back_does_not_break_the_order() -> None:
    readings = iter([5_000_000_000, 4_000_000_000, 4_000_000_000, 6_000_000_000])
    source = Uuid7Source(clock_nanoseconds=lambda: next(readings))
    made = [source() for _ in range(4)]
    assert made == sorted(set(made))


def test_threads_never_share_one() -> None:
    made: list[list[str]] = [[] for _ in range(4)]

    def fill(mine: list[str]) -> None:
        mine.extend(uuid7() for _ in range(5_000))

    threads = [threading.Thread(target=fill, args=(mine,)) for mine in made]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(mine == sorted(mine) for mine in made)
    assert len({one for mine in made for one in mine}) == 20_000


def test_random_bytes_are_given_out_once() -> None:
    source = RandomBuffer()
    sizes = [1, 8, 32, 4096, 7, 4090, 16] * 40
    taken = [source(size) for size in sizes]
    assert [len(one) for one in taken] == sizes
    long = [one for one in taken if len(one) >= 8]
    assert len(set(long)) == len(long)


def test_a_forked_process_draws_its_own() -> None:
    source = RandomBuffer()
    source(8)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writing, source(32))
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(reading, 32) != source(32)
    os.close(reading)
    os.close(writing)
