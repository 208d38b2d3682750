"""What one client may take: the counting alone, against a clock of the test's own."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.adapters.problems import RateLimited
from penstock.adapters.server.limits import (
    CONNECTION,
    UNLIMITED,
    Connection,
    Limits,
    LimitsConfig,
    RateLimiter,
    Shares,
    address_key,
)


def connection(client: str) -> Connection:
    return Connection(client, _Nowhere())


class _Nowhere:
    def send_now(self, data: bytes) -> bytes:
        raise AssertionError("nothing is said here")

    async def send_all(self, data: bytes) -> None:
        raise AssertionError("nothing is said here")


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_burst_passes_then_the_rate_rules_and_a_refusal_says_when() -> None:
    clock = Clock()
    limiter = RateLimiter(10, 5, clock=clock)
    for _ in range(5):
        limiter.take("a")
    with pytest.raises(RateLimited) as refused:
        limiter.take("a")
    assert refused.value.retry_after == pytest.approx(0.1)
    clock.now += refused.value.retry_after
    limiter.take("a")
    with pytest.raises(RateLimited):
        limiter.take("a")


def test_one_key_takes_nothing_from_another() -> None:
    limiter = RateLimiter(1, 1, clock=Clock())
    limiter.take("a")
    with pytest.raises(RateLimited):
        limiter.take("a")
    limiter.take("b")


def test_a_refusal_takes_nothing() -> None:
    clock = Clock()
    limiter = RateLimiter(1, 4, clock=clock)
    limiter.take("a", 3)
    for _ in range(10):
        with pytest.raises(RateLimited):
            limiter.take("a", 2)
    limiter.take("a", 1)


def test_what_costs_more_than_a_full_bucket_takes_a_full_bucket() -> None:
    clock = Clock()
    limiter = RateLimiter(1, 4, clock=clock)
    limiter.take("a", 100)
    with pytest.raises(RateLimited):
        limiter.take("a")
    clock.now += 4
    limiter.take("a", 100)


def test_memory_is_bounded_and_full_buckets_are_forgotten() -> None:
    clock = Clock()
    limiter = RateLimiter(1, 2, clock=clock, buckets=50)
    for number in range(1000):
        limiter.take(str(number))
    assert len(limiter) <= 50
    clock.now += 10
    for _ in range(60):
        limiter.take("z")
        clock.now += 1
    assert len(limiter) == 1


def test_no_rate_is_no_limit() -> None:
    limiter = RateLimiter(math.inf, math.inf, clock=Clock())
    for _ in range(1000):
        limiter.take("a")
    assert len(limiter) == 0


@given(st.lists(st.tuples(st.floats(0, 0.5), st.floats(0.1, 3)), max_size=60))
def test_nobody_ever_gets_more_than_burst_and_rate(steps: list[tuple[float, float]]) -> None:
    clock = Clock()
    limiter = RateLimiter(4, 6, clock=clock)
    passed: list[tuple[float, float]] = []
    for pause, cost in steps:
        clock.now += pause
        wait = 0.0
        try:
            limiter.take("a", cost)
            passed.append((clock.now, cost))
        except RateLimited as refused:
            wait = refused.retry_after
        assert 0 <= wait <= 6 / 4 + 3 / 4
    for first in range(len(passed)):
        taken = 0.0
        for at, cost in passed[first:]:
            taken += cost
            assert taken <= 6 + 4 * (at - passed[first][0]) + 1e-3


def test_shares_are_bounded_per_key_and_come_back() -> None:
    shares = Shares(2, "things")
    shares.take("a")
    shares.take("a")
    with pytest.raises(RateLimited):
        shares.take("a")
    shares.take("b")
    shares.leave("a")
    shares.take("a")
    for key in "aab":
        shares.leave(key)
    assert shares.held("a") == shares.held("b") == 0


def test_a_connection_counts_for_whom_it_works_and_only_while_it_does() -> None:
    shares = Shares(1, "connections")
    one, two = connection("192.0.2.1"), connection("192.0.2.1")
    one.work_for(shares, "a")
    one.work_for(shares, "a")
    with pytest.raises(RateLimited):
        two.work_for(shares, "a")
    one.work_for(shares, "b")
    two.work_for(shares, "a")
    one.rest()
    one.rest()
    two.rest()
    assert shares.held("a") == shares.held("b") == 0


def test_a_refused_connection_is_nobodys() -> None:
    shares = Shares(1, "connections")
    one, two = connection("192.0.2.1"), connection("192.0.2.1")
    one.work_for(shares, "a")
    two.work_for(shares, "b")
    with pytest.raises(RateLimited):
        two.work_for(shares, "a")
    two.rest()
    assert (shares.held("a"), shares.held("b")) == (1, 0)


def test_principals_are_told_from_addresses_and_from_each_other() -> None:
    limits = Limits(LimitsConfig(rate=1, burst=1, connections=9, subscriptions=1), clock=Clock())
    token = CONNECTION.set(connection("192.0.2.1"))
    try:
        limits.admit("ann")
        limits.admit("192.0.2.1")
        limits.admit()
        for who in ("ann", "192.0.2.1", None):
            with pytest.raises(RateLimited):
                limits.admit(who)
        CONNECTION.set(connection("192.0.2.2"))
        limits.admit()
        with limits.subscription("ann"):
            with pytest.raises(RateLimited), limits.subscription("ann"):
                pass
            with limits.subscription("bob"), limits.subscription():
                pass
        with limits.subscription("ann"):
            pass
    finally:
        CONNECTION.reset(token)


def test_without_principal_and_connection_nobody_is_counted() -> None:
    limits = Limits(LimitsConfig(rate=1, burst=1, connections=1, subscriptions=1), clock=Clock())
    for _ in range(3):
        limits.admit()
    with limits.subscription(), limits.subscription():
        pass


def test_unlimited_is_unlimited() -> None:
    limits = Limits(UNLIMITED, clock=Clock())
    for _ in range(10_000):
        limits.admit("ann")


@pytest.mark.parametrize(
    "bad", [{"rate": 0.0}, {"rate": -1.0}, {"rate": math.nan}, {"burst": 0.5}, {"connections": 0.0}]
)
def test_a_limit_that_lets_nobody_in_is_refused(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError):
        LimitsConfig(**bad)


@pytest.mark.parametrize(
    ("address", "key"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::9", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
    ],
)
def test_addresses_are_counted_by_customer(address: str, key: str) -> None:
    assert address_key(address) == key
