"""Conversations, facts and replies in a real SQLite database."""

import asyncio
import random
import sqlite3
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from naila.events import Reply, Usage
from naila.memory.conversation_memory import SqliteConversationMemory, window_start
from naila.memory.database import IN_MEMORY, Database
from naila.memory.overview import Forgotten
from naila.ports import ConversationMemory, Fact, Recollection, Turn

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)


def turn(
    request: str, *, device: str = "r2", conversation: str = "default", user: str | None = None, text: str = "Hello"
) -> Turn:
    return Turn(
        device_id=device,
        conversation_id=conversation,
        request_id=request,
        user_id=user,
        user_text=text,
        note="It is noon.",
        reply_text=f"Answer to {request}",
        intent="greeting",
        source="llm",
        said_at=NOON,
    )


def reply_to(turn: Turn) -> Reply:
    return Reply(
        device_id=turn.device_id,
        id=turn.request_id,
        text=turn.reply_text,
        intent=turn.intent,
        source="llm",
        degraded=False,
        conversation_id=turn.conversation_id,
        finish_reason="stop",
        usage=Usage(prompt_tokens=7),
    )


async def keep(memory: ConversationMemory, turn: Turn, *facts: Fact) -> None:
    await memory.remember(turn, facts, reply_to(turn))


async def said(memory: ConversationMemory, device: str = "r2", conversation: str = "default") -> list[str]:
    return [turn.request_id for turn in (await memory.recall(device, conversation, None)).turns]


@pytest.fixture
async def database() -> AsyncIterator[Database]:
    async with Database(IN_MEMORY) as database:
        yield database


@pytest.fixture
def memory(database: Database) -> SqliteConversationMemory:
    return SqliteConversationMemory(database, 8)


async def test_a_turn_comes_back_as_it_was_told(memory: SqliteConversationMemory) -> None:
    told = replace(turn("1", user="ada"), said_at=NOON.astimezone(timezone(timedelta(hours=2))))
    await keep(memory, told, Fact("name", "Ada"))
    assert await memory.recall("r2", "default", "ada") == Recollection((told,), (Fact("name", "Ada"),))


async def test_nothing_is_remembered_of_a_stranger(memory: SqliteConversationMemory) -> None:
    assert await memory.recall("r2", "default", None) == Recollection()
    assert await memory.answered("r2", "1") is None


async def test_conversations_of_one_device_are_apart(memory: SqliteConversationMemory) -> None:
    await keep(memory, turn("1", conversation="kitchen"))
    await keep(memory, turn("2", conversation="garden"))
    await keep(memory, turn("3", conversation="kitchen"))
    assert await said(memory, conversation="kitchen") == ["1", "3"]
    assert await said(memory, conversation="garden") == ["2"]


async def test_a_device_never_sees_anothers_memory(memory: SqliteConversationMemory) -> None:
    await keep(memory, turn("1", device="r2", user="ada"), Fact("name", "Ada"))
    await keep(memory, turn("1", device="c3"), Fact("name", "Grace"))
    assert (await memory.recall("c3", "default", "ada")).facts == ()
    assert [turn.device_id for turn in (await memory.recall("c3", "default", None)).turns] == ["c3"]
    answered = await memory.answered("c3", "1")
    assert answered is not None
    assert answered.device_id == "c3"
    assert await memory.answered("bb8", "1") is None
    assert [turn.device_id for turn in (await memory.show("r2")).turns] == ["r2"]
    await memory.forget("c3")
    assert await said(memory, "r2") == ["1"]


async def test_a_new_value_of_a_fact_replaces_the_old_one_in_its_place(memory: SqliteConversationMemory) -> None:
    await keep(memory, turn("1"), Fact("name", "Ada"), Fact("likes", "tea"))
    await keep(memory, turn("2"), Fact("name", "Grace"), Fact("name", "Edith"))
    assert (await memory.recall("r2", "default", None)).facts == (Fact("name", "Edith"), Fact("likes", "tea"))


async def test_facts_belong_to_a_person_and_nobody_is_a_person_too(memory: SqliteConversationMemory) -> None:
    for request, user, name in (("1", None, "Somebody"), ("2", "", "Empty"), ("3", "ada", "Ada")):
        await keep(memory, turn(request, user=user), Fact("name", name))
    found = [(await memory.recall("r2", "default", user)).facts for user in (None, "", "ada", "eve")]
    assert found == [(Fact("name", "Somebody"),), (Fact("name", "Empty"),), (Fact("name", "Ada"),), ()]


async def test_facts_are_known_in_every_conversation_of_the_device(memory: SqliteConversationMemory) -> None:
    await keep(memory, turn("1", conversation="kitchen"), Fact("name", "Ada"))
    assert (await memory.recall("r2", "garden", None)).facts == (Fact("name", "Ada"),)


async def test_a_request_is_remembered_once(memory: SqliteConversationMemory) -> None:
    await keep(memory, turn("1"), Fact("name", "Ada"))
    await keep(memory, replace(turn("1"), reply_text="something else"), Fact("name", "Eve"))
    recollection = await memory.recall("r2", "default", None)
    assert [turn.reply_text for turn in recollection.turns] == ["Answer to 1"]
    assert recollection.facts == (Fact("name", "Ada"),)
    assert await memory.answered("r2", "1") == reply_to(turn("1"))


async def test_concurrent_devices_and_repeats_are_kept_once_each(memory: SqliteConversationMemory) -> None:
    turns = [turn(str(number % 5), device=device) for number in range(20) for device in ("r2", "c3")]
    await asyncio.gather(*(keep(memory, each) for each in turns))
    assert sorted(await said(memory, "r2")) == sorted(await said(memory, "c3")) == ["0", "1", "2", "3", "4"]


async def test_turn_facts_and_reply_are_kept_all_or_none(memory: SqliteConversationMemory) -> None:
    with pytest.raises(TypeError):
        await memory.remember(turn("1"), [Fact("name", object())], reply_to(turn("1")))  # type: ignore[arg-type]
    assert await memory.recall("r2", "default", None) == Recollection()
    assert await memory.answered("r2", "1") is None


async def test_everything_survives_a_restart(tmp_path: Path) -> None:
    for number in range(4):
        async with Database(tmp_path / "naila.db") as database:
            memory = SqliteConversationMemory(database, 8)
            assert await said(memory) == [str(before) for before in range(number)]
            assert [await memory.answered("r2", str(before)) for before in range(number)] == [
                reply_to(turn(str(before))) for before in range(number)
            ]
            await keep(memory, turn(str(number)), Fact("count", str(number)))
            assert (await memory.recall("r2", "default", None)).facts == (Fact("count", str(number)),)


@settings(deadline=None)
@given(st.lists(st.text(st.characters()), min_size=6, max_size=6), st.none() | st.text(st.characters()))
def test_any_text_is_kept_and_only_lone_surrogates_change(words: list[str], user: str | None) -> None:
    def storable(text: str) -> str:
        return "".join("\N{REPLACEMENT CHARACTER}" if "\ud800" <= char <= "\udfff" else char for char in text)

    text, note, answer, intent, key, value = words
    told = replace(turn("1", user=user, text=text), note=note, reply_text=answer, intent=intent)

    async def keep_and_recall() -> tuple[Recollection, Reply | None]:
        async with Database(IN_MEMORY) as database:
            memory = SqliteConversationMemory(database, 8)
            await keep(memory, told, Fact(key, value))
            return await memory.recall("r2", "default", user), await memory.answered("r2", "1")

    recollection, reply = asyncio.run(keep_and_recall())
    expected = replace(
        told,
        user_text=storable(text),
        note=storable(note),
        reply_text=storable(answer),
        intent=storable(intent),
        user_id=None if user is None else storable(user),
    )
    assert recollection == Recollection((expected,), (Fact(storable(key), storable(value)),))
    assert reply == reply_to(told)


@pytest.mark.parametrize("hostile", ["'; DROP TABLE turns; --", "%", "_", "\x00", 'a" OR 1=1'])
async def test_ids_are_data_and_never_sql(memory: SqliteConversationMemory, hostile: str) -> None:
    await keep(memory, turn("1"))
    await keep(memory, turn(hostile, device=hostile, conversation=hostile))
    assert await said(memory, hostile, hostile) == [hostile]
    assert await memory.forget(hostile) == Forgotten(turns=1, facts=0, replies=1)
    assert await said(memory) == ["1"]


async def test_the_window_moves_in_blocks_so_that_the_prompts_prefix_stands_still(
    memory: SqliteConversationMemory,
) -> None:
    starts = []
    for number in range(20):
        await keep(memory, turn(str(number)))
        window = await said(memory)
        assert window[-1] == str(number)
        starts.append(window[0])
    assert starts == ["0"] * 8 + ["2"] * 2 + ["4"] * 2 + ["6"] * 2 + ["8"] * 2 + ["10"] * 2 + ["12"] * 2


@given(total=st.integers(0, 10_000), max_turns=st.integers(0, 500))
def test_the_window_is_never_too_long_nor_needlessly_short(total: int, max_turns: int) -> None:
    kept = total - window_start(total, max_turns)
    assert kept <= max_turns
    assert kept >= min(total, max_turns - max(1, max_turns // 4) + 1)


@given(total=st.integers(0, 10_000), max_turns=st.integers(8, 500))
def test_a_block_leaves_at_once_and_then_the_window_stands(total: int, max_turns: int) -> None:
    step = max_turns // 4
    starts = {window_start(number, max_turns) for number in range(total, total + step)}
    assert len(starts) <= 2


async def test_a_memory_of_no_turns_recalls_none_and_still_keeps_facts(database: Database) -> None:
    memory = SqliteConversationMemory(database, 0)
    await keep(memory, turn("1"), Fact("name", "Ada"))
    assert await memory.recall("r2", "default", None) == Recollection((), (Fact("name", "Ada"),))


async def test_replies_are_kept_up_to_a_number_for_each_device(database: Database) -> None:
    memory = SqliteConversationMemory(database, 8, max_replies=3)
    await keep(memory, turn("0", device="c3"))
    for number in range(10):
        await keep(memory, turn(str(number)))
    kept = [number for number in range(10) if await memory.answered("r2", str(number)) is not None]
    assert kept == [7, 8, 9]
    assert await memory.answered("c3", "0") is not None
    assert len((await memory.show("r2")).turns) == 10


async def test_an_old_reply_is_not_given_and_its_id_is_free_again(database: Database) -> None:
    now = NOON
    memory = SqliteConversationMemory(database, 8, max_reply_age=timedelta(days=1), now=lambda: now)
    await keep(memory, turn("1"))
    now += timedelta(days=1)
    assert await memory.answered("r2", "1") is not None
    now += timedelta(seconds=1)
    assert await memory.answered("r2", "1") is None
    await keep(memory, replace(turn("1"), reply_text="a new answer"))
    assert [turn.reply_text for turn in (await memory.recall("r2", "default", None)).turns] == [
        "Answer to 1",
        "a new answer",
    ]
    answered = await memory.answered("r2", "1")
    assert answered is not None
    assert answered.text == "a new answer"


async def test_a_reply_that_cannot_be_read_counts_as_not_given(
    database: Database, memory: SqliteConversationMemory, caplog: pytest.LogCaptureFixture
) -> None:
    await keep(memory, turn("1"))
    for damaged in ("{", "{}", "[]", "7"):

        def damage(connection: sqlite3.Connection, text: str = damaged) -> None:
            connection.execute("UPDATE replies SET reply = ?", (text,))

        await database.run(damage)
        assert await memory.answered("r2", "1") is None
    assert "the stored reply to 1 of r2 cannot be read" in caplog.text


async def test_devices_and_what_is_remembered_of_each_are_shown(memory: SqliteConversationMemory) -> None:
    await keep(memory, turn("1", user="ada"), Fact("name", "Ada"))
    await keep(memory, turn("2", conversation="garden"), Fact("likes", "tea"))
    await keep(memory, turn("1", device="c3"))
    shown = [
        (each.device_id, each.conversations, each.turns, each.facts, each.last_said_at)
        for each in await memory.devices()
    ]
    assert shown == [("c3", 1, 1, 0, NOON), ("r2", 2, 2, 2, NOON)]
    device = await memory.show("r2")
    assert [turn.request_id for turn in device.turns] == ["1", "2"]
    assert [(each.user_id, each.fact.key) for each in device.facts] == [(None, "likes"), ("ada", "name")]
    assert [turn.request_id for turn in (await memory.show("r2", last=1)).turns] == ["2"]
    assert (await memory.show("nobody")).turns == ()


async def test_forgetting_a_conversation_leaves_the_others_and_the_facts(memory: SqliteConversationMemory) -> None:
    await keep(memory, turn("1", conversation="kitchen"), Fact("name", "Ada"))
    await keep(memory, turn("2", conversation="garden"))
    assert await memory.forget("r2", "kitchen") == Forgotten(turns=1, facts=0, replies=1)
    assert await said(memory, conversation="kitchen") == []
    assert await said(memory, conversation="garden") == ["2"]
    assert await memory.answered("r2", "1") is None
    assert (await memory.recall("r2", "kitchen", None)).facts == (Fact("name", "Ada"),)
    await keep(memory, turn("1", conversation="kitchen"))
    assert await said(memory, conversation="kitchen") == ["1"]


def holding(word: bytes, folder: Path) -> set[str]:
    return {part.name for part in folder.iterdir() if word in part.read_bytes()}


async def test_what_is_forgotten_leaves_no_byte_in_any_file(tmp_path: Path) -> None:
    # With this seed, SQLite's secure_delete alone leaves traces in the gaps of pages.
    draw = random.Random(6)
    async with Database(tmp_path / "naila.db") as database:
        memory = SqliteConversationMemory(database, 8, max_replies=20)
        for number in range(600):
            device, word = draw.choice([("r2", "SECRET "), ("c3", "normal "), ("bb8", "public ")])
            text = word * draw.choice([1, 2, 20, 150])
            told = turn(str(number), device=device, conversation=f"{word}{number % 7}", text=text)
            await keep(memory, told, Fact(f"{word}{number}", text))
        forgotten = await memory.forget("r2")
        assert forgotten.turns > 100
        assert forgotten.facts == forgotten.turns
        assert holding(b"SECRET", tmp_path) == set()
        assert "naila.db" in holding(b"normal", tmp_path)
        assert [each.device_id for each in await memory.devices()] == ["bb8", "c3"]


async def test_another_process_may_look_and_forget_while_the_daemon_runs(tmp_path: Path) -> None:
    async with Database(tmp_path / "naila.db") as daemon, Database(tmp_path / "naila.db", move_corrupt=False) as other:
        memory, looking = SqliteConversationMemory(daemon, 8), SqliteConversationMemory(other, 8)
        await keep(memory, turn("1"))
        assert await said(looking) == ["1"]
        await looking.forget("r2")
        assert await said(memory) == []
        await keep(memory, turn("2"))
        assert await said(looking) == ["2"]


async def test_turns_are_kept_so_long_and_facts_for_ever(database: Database) -> None:
    now = datetime(2026, 11, 20, tzinfo=UTC)
    memory = SqliteConversationMemory(database, 8, max_turn_age=timedelta(days=90), now=lambda: now)
    await keep(memory, replace(turn("old"), said_at=now - timedelta(days=91)), Fact("name", "Ada"))
    await keep(memory, replace(turn("new"), said_at=now - timedelta(days=89)))
    assert await memory.prune() == 1
    shown = await memory.show("r2")
    assert [kept.request_id for kept in shown.turns] == ["new"]
    assert [fact.fact.value for fact in shown.facts] == ["Ada"]
    await keep(memory, replace(turn("next"), said_at=now))
    recalled = await memory.recall("r2", "default", None)
    assert [kept.request_id for kept in recalled.turns] == ["new", "next"]
