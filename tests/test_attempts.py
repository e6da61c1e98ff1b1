"""What an address does in a minute, counted in a bounded memory."""

from __future__ import annotations

from tornado_logs.attempts import Attempts, client_network


def test_an_address_counts_from_one_again_after_a_minute() -> None:
    now = 100.0
    attempts = Attempts(lambda: now)
    assert [attempts.add("10.0.0.1").number for _ in range(3)] == [1, 2, 3]
    now = 130.0
    attempt = attempts.add("10.0.0.1")
    assert (attempt.number, attempt.number_in_all, attempt.seconds_left) == (4, 4, 30.0)
    assert attempts.add("10.0.0.2").number == 1
    now = 160.0
    attempt = attempts.add("10.0.0.1")
    assert (attempt.number, attempt.number_in_all, attempt.seconds_left) == (1, 1, 60.0)


def test_the_memory_is_bounded_and_keeps_the_newest() -> None:
    attempts = Attempts(lambda: 100.0)
    for number in range(10_000):
        attempts.add(f"10.0.{number >> 8}.{number & 255}")
        assert attempts.add("192.0.2.1").number == number + 1
    assert len(attempts) == 4096


def test_a_network_of_ipv6_counts_as_one_client() -> None:
    assert client_network("10.0.0.1") == "10.0.0.1"
    assert client_network("2001:db8::1") == client_network("2001:db8::ffff:2")
    assert client_network("2001:db8::1") != client_network("2001:db8:0:1::1")
    assert client_network("fe80::1%eth0") == client_network("fe80::2%eth0")
    assert client_network("no address: at all") == "no address: at all"
