"""The pages as files and events, from a real server over a real socket."""

import asyncio
import hashlib
import json
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import ClientResponse, ClientSession, web

from helpers.loopback import eventually, soon
from swarm.client.status import ModelStatus, PeerStatus
from swarm.gateway import pages
from swarm.gateway.pages import FILES, PAGES, add_pages, is_open
from swarm.gateway.speedometer import Speedometer
from swarm.gateway.watch import Watch
from swarm.outputs import Piece

MAX_BYTES = 120_000  # of all pages together,
MAX_BYTES_WITH_VENDOR = 200_000  # and with the code of others
VENDOR = FILES / "vendor"
PEER = PeerStatus("12D3peer", (0, 4), "float32", 10.0, 100, "online", "swarm/1", 5.0, "direct")


class Site:
    """The pages alone, and the state that they show."""

    def __init__(self) -> None:
        self.looks = 0
        self.watch = Watch(self.look, every_s=0.01)
        self.speedometer = Speedometer()
        self.url = ""

    async def look(self) -> Sequence[ModelStatus]:
        self.looks += 1
        return [ModelStatus("tiny", "f" * 32, 4, (PEER,), ())]

    @asynccontextmanager
    async def up(self) -> AsyncIterator["Site"]:
        app = web.Application()
        add_pages(app, self.watch, self.speedometer)
        runner = web.AppRunner(app, shutdown_timeout=5.0)
        async with self.watch:
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
            try:
                yield self
            finally:
                await soon(runner.cleanup())


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    async with Site().up() as site:
        yield site


@pytest.fixture
async def get(site: Site) -> AsyncIterator[ClientSession]:
    async with ClientSession(site.url) as session:
        yield session


async def first_event(response: ClientResponse) -> dict[str, object]:
    line = await soon(response.content.readline())
    assert line.startswith(b"data: ")
    return dict(json.loads(line.removeprefix(b"data: ")))


async def test_pages_may_load_nothing_but_their_own_files(get: ClientSession) -> None:
    files = [f"/pages/{name}" for name in served() if not name.endswith(".html")]
    total = ours = 0
    for path in [*PAGES, *files]:
        async with get.get(path) as response:
            body = await response.text()
            assert response.status == 200, path
            assert response.headers["X-Content-Type-Options"] == "nosniff"
            policy = dict(
                part.strip().split(" ", 1)
                for part in response.headers["Content-Security-Policy"].split(";")
            )
            assert policy["default-src"] == "'none'"
            assert policy["script-src"] == "'self'"
            assert policy["frame-ancestors"] == "'none'"
            assert policy["require-trusted-types-for"] == "'script'"
            assert policy["trusted-types"] == "'none'"
            total += len(body.encode())
            assert not re.search(r"innerHTML|outerHTML|\beval\(|new Function|document\.write", body)
            assert not re.search(r"\bimport\(|\bfetch\(", body) or path == "/pages/gateway.js", path
            if path.startswith("/pages/vendor/"):
                continue
            ours += len(body.encode())
            assert not re.search(r"https?://(?!www\.w3\.org/)", body), path
            assert not re.search(
                r"<script(?![^>]* src=)|<style>|\sstyle=|\son\w+=", body.replace("<style>path", "")
            ), path
    assert ours < MAX_BYTES
    assert total < MAX_BYTES_WITH_VENDOR


def served() -> list[str]:
    files = (file for file in FILES.rglob("*") if file.suffix in pages.TYPES)
    return [file.relative_to(FILES).as_posix() for file in files]


def test_code_of_others_is_as_it_was_published() -> None:
    said = (VENDOR / "README.md").read_text()
    rows = re.findall(
        r"^\| `([\w.]+)` \| \[(\w+)\].*?\| ([\d.]+) \|.*?`(\w{64})`", said, re.MULTILINE
    )
    assert {row[0] for row in rows} == {file.name for file in VENDOR.glob("*.js")}
    for name, package, version, digest in rows:
        body = (VENDOR / name).read_bytes()
        assert hashlib.sha256(body).hexdigest() == digest
        assert f"{package} v{version}".encode() in body
        assert "MIT" in (VENDOR / f"{package}.LICENSE").read_text()
        assert f"npm pack {package}@{version}" in said


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "text/html"),
        ("/swarm", "text/html"),
        ("/pages/style.css", "text/css"),
        ("/pages/chat.js", "text/javascript"),
        ("/pages/vendor/marked.esm.js", "text/javascript"),
        ("/pages/icon.svg", "image/svg+xml"),
    ],
)
async def test_files_have_types_and_are_sent_again_only_if_they_changed(
    get: ClientSession, path: str, kind: str
) -> None:
    async with get.get(path) as response:
        assert response.content_type == kind
        assert response.headers["Cache-Control"] == "no-cache"
        tag = response.headers["ETag"]
    async with get.get(path, headers={"If-None-Match": tag}) as response:
        assert (response.status, await response.read()) == (304, b"")
        assert "Content-Security-Policy" in response.headers
    async with get.get(path, headers={"If-None-Match": '"other"'}) as response:
        assert response.status == 200


@pytest.mark.parametrize(
    "path",
    [
        "/pages/",
        "/pages/chat.html",
        "/pages/vendor/README.md",
        "/pages/../pages.py",
        "/pages/%2e%2e/pages.py",
    ],
)
async def test_nothing_else_is_served(get: ClientSession, path: str) -> None:
    async with get.get(path) as response:
        assert response.status == 404


def test_what_scripts_and_pages_name_is_there() -> None:
    for file in map(FILES.joinpath, served()):
        for name in re.findall(r'"/pages/([\w./]+)"|from "\./([\w./]+)"', file.read_text()):
            assert (FILES / "".join(name)).is_file(), (file.name, name)
    for name in PAGES.values():
        page, script = (
            (FILES / name).read_text(),
            (FILES / Path(name).with_suffix(".js")).read_text(),
        )
        ids = set(re.findall(r'\bid="([\w-]+)"', page))
        assert set(re.findall(r'byId\("([\w-]+)"\)', script)) <= ids


async def test_the_swarm_is_told_while_somebody_listens(site: Site, get: ClientSession) -> None:
    async with get.get("/events/swarm") as response:
        assert response.content_type == "text/event-stream"
        view = await first_event(response)
        assert view["trouble"] == ""
        (model,) = view["models"]  # type: ignore[misc]
        assert model["peers"][0]["state"] == "online"
        assert model["coverage"] == [[0, 4, 1]]
    looking = site.watch._looking
    assert looking is not None
    await eventually(looking.done)


async def test_speed_is_told(site: Site, get: ClientSession) -> None:
    run = site.speedometer.began("tiny")
    run.piece(Piece(5, "a", "drafted", drafted_id=5))
    async with get.get("/events/speed") as response:
        speed = await first_event(response)
    assert speed["acceptance"] == 1.0
    assert speed["running"] == [
        {"model": "tiny", "seconds": pytest.approx(0, abs=60), "tokens": 1, "acceptance": 1.0}
    ]


async def test_readers_are_bounded_and_make_room_when_they_leave(
    get: ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages, "MAX_READERS", 2)
    async with AsyncExitStack() as open_pages:
        for path in ("/events/swarm", "/events/speed"):
            await first_event(await open_pages.enter_async_context(get.get(path)))
        async with get.get("/events/swarm") as refused:
            assert (refused.status, refused.headers["Retry-After"]) == (503, "10")
            assert "close one" in (await refused.json())["error"]["message"]

    async def takes_another() -> None:
        while True:
            async with get.get("/events/swarm") as response:
                if response.status == 200:
                    return
            await asyncio.sleep(0.05)

    await soon(takes_another())


async def test_events_end_when_the_gateway_stops() -> None:
    async with ClientSession() as session:
        async with Site().up() as site:
            response = await session.get(f"{site.url}/events/swarm")
            await first_event(response)
        await soon(response.content.read())


def test_pages_need_no_key_and_their_events_do() -> None:
    assert all(is_open(path) for path in (*PAGES, "/pages/chat.js"))
    assert not any(
        is_open(path) for path in ("/events/swarm", "/events/speed", "/v1/models", "/metrics")
    )
