"""A process that is killed while it writes loses nothing that it had acknowledged."""

import subprocess
import sys
from pathlib import Path

from naila.memory.conversation_memory import SqliteConversationMemory
from naila.memory.database import Database

ROOT = Path(__file__).parents[2]
WRITER = """
import asyncio, itertools, sys
from datetime import UTC, datetime
from pathlib import Path
from naila.events import Reply
from naila.memory.conversation_memory import SqliteConversationMemory
from naila.memory.database import Database
from naila.ports import Fact, Turn

async def main(path, first):
    async with Database(path) as database:
        memory = SqliteConversationMemory(database, 8, max_replies=100_000)
        for number in itertools.count(first):
            turn = Turn(device_id="r2", conversation_id="default", request_id=str(number), user_id=None,
                        user_text="word " * (number % 300), note="", reply_text=str(number), intent="chat",
                        source="llm", said_at=datetime.now(UTC))
            reply = Reply(device_id="r2", id=str(number), text=str(number), intent="chat", source="llm",
                          degraded=False, conversation_id="default", finish_reason="stop")
            await memory.remember(turn, [Fact("count", str(number))], reply)
            print(number, flush=True)

asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
"""


def write_until_killed(path: Path, first: int, acknowledgements: int) -> int:
    """Return the last number that the writer acknowledged."""
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path), str(first)],
        stdout=subprocess.PIPE,
        text=True,
        env={"PYTHONPATH": str(ROOT / "ai-server")},
    ) as writer:
        assert writer.stdout is not None
        for _ in range(acknowledgements):
            assert writer.stdout.readline()
        writer.kill()
        # What was printed before the kill was acknowledged too.
        rest = writer.stdout.read().splitlines(keepends=True)
    whole = [line for line in rest if line.endswith("\n")]
    return int(whole[-1]) if whole else first + acknowledgements - 1


async def test_every_acknowledged_turn_survives_kill_9(tmp_path: Path) -> None:
    path = tmp_path / "naila.db"
    kept = 0
    for acknowledgements in (1, 37, 150, 400):
        acknowledged = write_until_killed(path, kept, acknowledgements)
        async with Database(path, move_corrupt=False) as database:
            memory = SqliteConversationMemory(database, 8)
            verdict = await database.read(lambda connection: connection.execute("PRAGMA integrity_check").fetchall())
            turns = (await memory.show("r2")).turns
            (fact,) = (await memory.show("r2")).facts
            answered = [await memory.answered("r2", turn.request_id) for turn in turns]
        assert verdict == [("ok",)]
        kept = len(turns)
        assert kept > acknowledged
        assert [turn.request_id for turn in turns] == [str(number) for number in range(kept)]
        assert [reply.text for reply in answered if reply] == [turn.reply_text for turn in turns]
        assert fact.fact.value == str(kept - 1)
