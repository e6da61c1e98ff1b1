"""Whose turn it is to read."""

from __future__ import annotations

import asyncio

import pytest

from tornado_logs import reading_turns
from tornado_logs.reading_turns import ReadingTurns


@pytest.fixture(autouse=True)
def _long_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading_turns, "_TURN_SECONDS", 60.0)
    monkeypatch.setattr(reading_turns, "_SHARED_TURN_SECONDS", 60.0)


def test_who_has_the_turn_keeps_it_for_bare_bytes_or_while_nobody_waits() -> None:
    async def read() -> None:
        turns = ReadingTurns()
        found: dict[str, list[bool]] = {}

        async def take(name: str) -> None:
            await turns.ask(name)
            found[name] = [turns.may_go_on(name), turns.may_go_on(name, bare=True)]
            assert not turns.may_go_on("somebody else", bare=True)

        await asyncio.gather(*map(take, ("first", "second", "last")))
        assert found == {"first": [False, True], "second": [False, True], "last": [True, True]}

    asyncio.run(read())


def test_who_comes_while_another_reads_waits_for_the_next_turn() -> None:
    async def read() -> None:
        turns, order = ReadingTurns(), []

        async def take(name: str) -> None:
            await turns.ask(name)
            order.append(name)

        await take("first")
        second = asyncio.create_task(take("second"))
        await asyncio.sleep(0)
        await take("first")
        await second
        assert order == ["first", "second", "first"]

    asyncio.run(read())


def test_one_who_has_gone_passes_its_turn_on() -> None:
    async def read() -> None:
        turns = ReadingTurns()
        first, second, third = [turns.ask(name) for name in ("a", "b", "c")]
        second.cancel()
        async with asyncio.timeout(10):
            await asyncio.gather(first, third)
        assert turns.may_go_on("c")

    asyncio.run(read())


def test_a_turn_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading_turns, "_TURN_SECONDS", 0.0)

    async def read() -> None:
        turns = ReadingTurns()
        await turns.ask("first")
        assert not turns.may_go_on("first", bare=True)

    asyncio.run(read())
