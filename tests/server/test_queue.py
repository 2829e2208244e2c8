"""The queue: budget, order, fairness, admission, failure."""

import threading
from itertools import pairwise

import numpy as np
import pytest

from ufbert.server.queue import Lane, Queue
from ufbert.server.refusal import Refusal


class Recorder(Lane):
    """A lane that notes its batches, and waits before each until it is let go."""

    def __init__(self):
        object.__setattr__(self, "batches", [])
        object.__setattr__(self, "gate", threading.Semaphore(0))

    def compute(self, encodings):
        self.gate.acquire()
        self.batches.append([(name, len(tokens)) for name, tokens in encodings])
        if any(name == "bad" for name, _ in encodings):
            raise ValueError("a bad text")
        return [np.full(1, len(tokens), np.float32) for _, tokens in encodings]


class Text(tuple):
    """A name, and as many tokens as its length says."""

    def __len__(self):
        return len(self[1])


def text(name, tokens):
    return Text((name, range(tokens)))


class Client:
    """Sends requests and waits for them."""

    def __init__(self, queue, lane):
        self.queue, self.lane = queue, lane

    def send(self, name, *lengths):
        done = threading.Event()
        ticket = self.queue.submit(self.lane, [text(name, length) for length in lengths], lambda _: done.set())
        ticket.event = done
        return ticket


def wait(*tickets):
    for ticket in tickets:
        assert ticket.event.wait(10)


@pytest.fixture
def lane():
    return Recorder()


@pytest.fixture
def queue():
    queue = Queue(max_batch_tokens=10, max_queue_tokens=100)
    yield queue
    queue.end(lambda: Refusal(503, "Unhealthy", "over"))


@pytest.fixture
def client(queue, lane):
    return Client(queue, lane)


def busy(client):
    """Let the only worker begin with a batch; what comes now waits."""
    first = client.send("first", 1)
    while client.queue.texts:
        pass
    return first


def test_a_lonely_text_does_not_wait(client, lane):
    lane.gate.release()
    ticket = client.send("a", 3)
    wait(ticket)
    assert ticket.results[0] == [3] and lane.batches == [[("a", 3)]]
    assert client.queue.tokens == client.queue.texts == 0


def test_a_batch_is_the_oldest_text_and_all_that_fit(client, lane):
    tickets = [busy(client), *(client.send(name, length) for name, length in zip("abcd", (4, 4, 2, 9), strict=True))]
    lane.gate.release(5)
    wait(*tickets)
    assert lane.batches[1:] == [[("a", 4), ("b", 4), ("c", 2)], [("d", 9)]]


def test_a_text_longer_than_a_batch_runs_alone(client, lane):
    lane.gate.release(2)
    ticket = client.send("a", 25, 2)
    wait(ticket)
    assert lane.batches == [[("a", 25)], [("a", 2)]]


def test_a_large_request_lets_small_ones_pass(client, lane):
    first, large = busy(client), client.send("large", *[5] * 8)
    lane.gate.release(2)
    while len(lane.batches) < 2:
        pass
    while client.queue.texts > 4:  # the third batch is taken
        pass
    small = client.send("small", 5)
    lane.gate.release(9)
    wait(first, large, small)
    names = [name for batch in lane.batches for name, _ in batch]
    assert names.index("small") <= 7  # not behind all of the large one, whose last text is number 9


def test_small_requests_keep_their_order(client, lane):
    tickets = [busy(client), *(client.send(str(number), 6) for number in range(9))]
    lane.gate.release(20)
    wait(*tickets)
    order = [int(name) for batch in lane.batches[1:] for name, _ in batch]
    assert all(one < other for one, other in pairwise(order))


def test_admission_is_all_or_nothing(client, lane):
    tickets = [busy(client), *(client.send("a", *[5] * 5) for _ in range(3))]
    assert client.queue.tokens == 75
    tickets.append(client.send("b", *[5] * 6))  # 30 count as a quarter of the queue, 25
    with pytest.raises(Refusal) as refused:
        client.send("c", 1)
    assert refused.value.status == 429 and refused.value.retry_after >= 1
    assert client.queue.tokens == 100
    lane.gate.release(50)
    wait(*tickets)
    while client.queue.texts:
        pass
    wait(client.send("c", 1))


def test_a_request_larger_than_the_queue_is_served(client, lane):
    lane.gate.release(100)
    ticket = client.send("large", *[9] * 30)  # 270 tokens of 100
    wait(ticket)
    assert ticket.error is None and all(result == [9] for result in ticket.results)
    assert client.queue.tokens == 0


def test_cancelled_texts_are_not_computed(client, lane):
    first, gone, kept = busy(client), client.send("gone", 4, 4), client.send("kept", 4)
    error = Refusal(499, "Gone", "gone")
    client.queue.cancel(gone, error)
    wait(gone)
    assert gone.error is error and client.queue.tokens == 4
    lane.gate.release(3)
    wait(first, kept)
    assert lane.batches == [[("first", 1)], [("kept", 4)]]


def test_a_bad_text_fails_alone(client, lane):
    first, good, bad, other = (busy(client), *(client.send(name, 3) for name in ("good", "bad", "other")))
    lane.gate.release(10)
    wait(first, good, bad, other)
    assert isinstance(bad.error, ValueError)
    assert good.results[0] == other.results[0] == [3]


def test_what_fails_takes_its_other_texts_out(client, lane):
    first, bad = busy(client), client.send("bad", *[5] * 10)
    lane.gate.release(10)
    wait(first, bad)
    assert client.queue.tokens == client.queue.texts == 0


def test_the_end_fails_what_waits_and_admits_no_more(client, lane):
    first, waiting = busy(client), client.send("a", 3)
    client.queue.end(lambda: Refusal(503, "Unhealthy", "over"))
    wait(waiting)
    assert waiting.error.status == 503
    with pytest.raises(Refusal, match="over"):
        client.send("b", 1)
    lane.gate.release()
    wait(first)
    client.queue.join()
    assert first.error is None


def test_several_lanes_share_the_queue_but_no_batch(client, queue, lane):
    other = Client(queue, Recorder())
    tickets = [busy(client), client.send("a", 2), other.send("b", 2), client.send("c", 2)]
    lane.gate.release(5)
    other.lane.gate.release(5)
    wait(*tickets)
    assert lane.batches == [[("first", 1)], [("a", 2), ("c", 2)]] and other.lane.batches == [[("b", 2)]]


def test_a_free_worker_leaves_the_other_ones_their_share(lane):
    queue = Queue(max_batch_tokens=100, max_queue_tokens=1_000, workers=2)
    lane.gate.release(4)
    ticket = Client(queue, lane).send("a", *[5] * 8)
    wait(ticket)
    assert max(map(len, lane.batches)) == 4
    queue.end(lambda: Refusal(503, "Unhealthy", "over"))


def test_a_worker_outlives_an_event_loop_that_is_closed(client, lane, queue):
    def closed(_):
        raise RuntimeError("Event loop is closed")

    lane.gate.release(2)
    queue.submit(lane, [text("a", 1)], closed)
    wait(client.send("b", 1))


def test_many_threads_get_their_own_results():
    queue = Queue(max_batch_tokens=50, max_queue_tokens=10**6, workers=3)
    lane = Recorder()
    lane.gate.release(10**6)
    client, wrong = Client(queue, lane), []

    def ask(seed):
        rng = np.random.default_rng(seed)
        for _ in range(50):
            lengths = rng.integers(1, 20, rng.integers(1, 10)).tolist()
            ticket = client.send("a", *lengths)
            wait(ticket)
            if [result[0] for result in ticket.results] != lengths:
                wrong.append(lengths)

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not wrong and queue.tokens == queue.texts == 0
    queue.end(lambda: Refusal(503, "Unhealthy", "over"))
