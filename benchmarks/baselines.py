"""What NAILA is measured against: the same words, model, threads and context, served by llama.cpp's own programs.

- llama-cpp-python's `Llama` behind a lock, which is what a program gets that uses it as its documentation shows.
- llama.cpp's `llama-server` with a slot for each robot, asked over its OpenAI endpoint.
- llama.cpp's `llama-bench`, for the speed of one stream with nothing around it.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import subprocess
import threading
import time
from collections.abc import AsyncGenerator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.conversation import Answer, AnswerError, Heard
from llama_cpp import Llama

from naila.events import Usage
from naila.ports import ChatMessage
from support.mosquitto import free_port

START_TIMEOUT_S = 300.0
SAMPLING = {"temperature": 0.0, "top_p": 1.0, "min_p": 0.0, "stream": True}


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What is the same for every party.

    Attributes:
        model: GGUF file.
        threads: that decode and read.
        context: tokens of one conversation.
        timeout_s: for one answer.
        built_in_format: the file has no chat template and the format is Llama 3's.
    """

    model: Path
    threads: int
    context: int
    timeout_s: float
    built_in_format: bool


@dataclass(frozen=True, slots=True)
class LockedLlama:
    """One `Llama`, one lock, a thread for each robot. It lives in this process: no network at all lies between."""

    terms: Terms
    name: str = "Llama + lock"

    @asynccontextmanager
    async def running(self, folder: Path, robots: int) -> AsyncGenerator[_LockedTalker]:  # noqa: ARG002 - no files
        """Load the model and warm it up."""
        llama = await asyncio.to_thread(self._load)
        try:
            with ThreadPoolExecutor(robots) as pool:
                yield _LockedTalker(llama, pool)
        finally:
            llama.close()

    def _load(self) -> Any:
        llama = Llama(
            str(self.terms.model),
            n_ctx=self.terms.context,
            n_threads=self.terms.threads,
            n_threads_batch=self.terms.threads,
            chat_format="llama-3" if self.terms.built_in_format else None,
            verbose=False,
        )
        llama.create_chat_completion(messages=openai_messages((), "Hello!"), max_tokens=1)
        return llama


class _LockedTalker:
    def __init__(self, llama: Any, pool: ThreadPoolExecutor) -> None:
        self._llama = llama
        self._pool = pool
        self._lock = threading.Lock()
        self._prompt = self._evaluated = self._drawn = 0
        self._generate, self._evaluate = llama.generate, llama.eval
        llama.generate, llama.eval = self._counted_generate, self._counted_eval

    async def ask(self, robot: str, history: Sequence[ChatMessage], words: str, max_tokens: int) -> Answer:  # noqa: ARG002 - it knows no robots
        """Wait for the lock and answer."""
        messages = openai_messages(history, words)
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._answer, messages, max_tokens)

    def _answer(self, messages: list[dict[str, str]], max_tokens: int) -> Answer:
        heard = Heard()
        reason = "stop"
        with self._lock:
            self._prompt = self._evaluated = self._drawn = 0
            for chunk in self._llama.create_chat_completion(messages=messages, max_tokens=max_tokens, **SAMPLING):
                choice = chunk["choices"][0]
                heard.piece(choice["delta"].get("content") or "")
                reason = choice["finish_reason"] or reason
            # All that was evaluated is what was read of the prompt and every drawn token but the last.
            usage = Usage(
                prompt_tokens=self._prompt,
                cached_tokens=self._prompt - (self._evaluated - (self._drawn - 1)),
                completion_tokens=self._drawn,
            )
        return heard.answer(usage, reason)

    def _counted_generate(self, tokens: Sequence[int], *args: Any, **options: Any) -> Iterator[int]:
        self._prompt = len(tokens)
        for token in self._generate(tokens, *args, **options):
            self._drawn += 1
            yield token

    def _counted_eval(self, tokens: Sequence[int]) -> None:
        self._evaluated += len(tokens)
        self._evaluate(tokens)


@dataclass(frozen=True, slots=True)
class LlamaServer:
    """llama.cpp's server, with a slot of its own and the whole context for each robot."""

    terms: Terms
    binary: Path
    environ: Mapping[str, str]
    name: str = "llama-server"

    @asynccontextmanager
    async def running(self, folder: Path, robots: int) -> AsyncGenerator[_ServerTalker]:
        """Start it and wait until it has loaded the model."""
        port = free_port()
        process = self._start(folder / "llama-server.log", port, robots)
        try:
            await asyncio.to_thread(_wait_until_healthy, port, process)
            with ThreadPoolExecutor(robots) as pool:
                yield _ServerTalker(port, pool, self.terms.timeout_s)
        finally:
            process.terminate()
            await asyncio.to_thread(process.wait)

    def _start(self, log_path: Path, port: int, robots: int) -> subprocess.Popen[bytes]:
        command = [str(self.binary), *self._arguments(port, robots)]
        with log_path.open("wb") as log:
            return subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, **self.environ})

    def _arguments(self, port: int, robots: int) -> list[str]:
        threads = str(self.terms.threads)
        arguments = ["-m", str(self.terms.model), "-t", threads, "-tb", threads, "-np", str(robots)]
        arguments += ["-c", str(robots * self.terms.context), "--host", "127.0.0.1", "--port", str(port)]
        return arguments + ["--chat-template", "llama3"] * self.terms.built_in_format


class _ServerTalker:
    def __init__(self, port: int, pool: ThreadPoolExecutor, timeout_s: float) -> None:
        self._port = port
        self._pool = pool
        self._timeout_s = timeout_s

    async def ask(self, robot: str, history: Sequence[ChatMessage], words: str, max_tokens: int) -> Answer:  # noqa: ARG002 - it knows no robots
        """Post the whole conversation and read the stream of events."""
        messages = openai_messages(history, words)
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._answer, messages, max_tokens)

    def _answer(self, messages: list[dict[str, str]], max_tokens: int) -> Answer:
        request = {"messages": messages, "max_tokens": max_tokens, "cache_prompt": True, **SAMPLING}
        heard = Heard()
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=self._timeout_s)
        try:
            connection.request(
                "POST",
                "/v1/chat/completions",
                json.dumps({**request, "stream_options": {"include_usage": True}}),
                {"Content-Type": "application/json"},
            )
            response = connection.getresponse()
            if response.status != 200:
                raise AnswerError(f"llama-server said {response.status}: {response.read(500)!r}")
            usage, reason = _read_events(response, heard)
        except http.client.HTTPException as exc:
            raise AnswerError(f"llama-server broke off: {exc!r}") from exc
        finally:
            connection.close()
        return heard.answer(usage, reason)


def _read_events(lines: Iterable[bytes], heard: Heard) -> tuple[Usage, str]:
    usage, reason = Usage(), "stop"
    for line in lines:
        if not line.startswith(b"data: {"):
            continue
        event = json.loads(line.removeprefix(b"data: "))
        for choice in event.get("choices", ()):
            heard.piece(choice["delta"].get("content") or "")
            reason = choice.get("finish_reason") or reason
        if (told := event.get("usage")) is not None:
            usage = Usage(
                prompt_tokens=told["prompt_tokens"],
                cached_tokens=(told.get("prompt_tokens_details") or {}).get("cached_tokens", 0),
                completion_tokens=told["completion_tokens"],
            )
    return usage, reason


def _wait_until_healthy(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline and process.poll() is None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            connection.request("GET", "/health")
            if connection.getresponse().status == 200:
                return
        except OSError:
            pass
        finally:
            connection.close()
        time.sleep(0.05)
    raise SystemExit("llama-server did not start")


def llama_bench(binary: Path, terms: Terms, tokens: int, depth: int, environ: Mapping[str, str]) -> float:
    """Return the tokens a second of one stream with nothing around it, behind so many tokens of context."""
    command = [str(binary), "-m", str(terms.model), "-t", str(terms.threads), "-p", "0", "-n", str(tokens)]
    command += ["-d", str(depth), "-r", "3", "-o", "json"]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env={**os.environ, **environ})
    return float(json.loads(done.stdout)[0]["avg_ts"])


def openai_messages(history: Sequence[ChatMessage], words: str) -> list[dict[str, str]]:
    """Return a conversation as OpenAI's API takes it."""
    return [{"role": said.role, "content": said.content} for said in (*history, ChatMessage("user", words))]
