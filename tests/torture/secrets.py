"""Canaries in all that s3flow is told in confidence, failures to make them sing, and ears everywhere.

A seed makes a world: who s3flow is (keys, a role, a web identity, a container's or an instance's), how
it names its state, and a store that repeats what it was told. Every command runs in it at debug level.
What is printed, logged, kept, answered and shown of the process is searched.
"""  # noqa: A005 - always imported by its full name

from __future__ import annotations

import base64
import contextlib
import http.client
import random
import signal
import stat
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests import mariadb
from tests.e2e.program import Program, Running, document
from tests.servers import free_port
from tests.torture.canaries import Cage, canary
from tests.torture.programme import Broken, Task
from tests.torture.secrets_server import Gossip, gossiping

WAYS = ("keys", "session", "role", "web identity", "container", "instance", "profile")
ASKED = (
    *("plan", "plan --json", "scan", "sync", "status", "status --json --buckets --classes"),
    *("failures", "doctor", "doctor --policies", "retry", "rescan", "verify", "verify --json"),
    *("report", "report --json", "audit verify", "audit export", "state export --output out"),
    *("hold flow-0", "release flow-0", "forget flow-1"),
)
CRASH = "import sys; from tests.torture.secrets import crash; crash()"
PRIVATE = 0o077  # what nobody else may do with a file of s3flow's


class Haunted(Program):
    """s3flow, perhaps with a bug, or one that breaks down."""

    breaks_down = False

    def command(self, *words: str) -> list[str]:
        """As `Program.command`; one that breaks down has no other bug."""
        made = super().command(*words)
        if not self.breaks_down:
            return made
        return [sys.executable, "-c", CRASH, *made[made.index(words[0]) :]]


def crash() -> None:
    """Run the command line, and break down amid a request: where all its secrets are at hand."""
    from s3flow.__main__ import main
    from s3flow.wire.http import Pool

    request = Pool.request

    async def broken(self: Pool, *asked: Any, **more: Any) -> object:
        _, _, headers, *_ = asked
        if "authorization" in headers:
            raise RuntimeError("what nobody foresaw")
        return await request(self, *asked, **more)

    Pool.request = broken  # type: ignore[assignment,method-assign]
    main()


@dataclass(slots=True)
class World:
    """One seed's: canaries, a store, a program; *told* counts what was searched."""

    folder: Path
    seed: int
    bug: str
    told: Counter[str]
    which: int = 0  # of `WAYS`
    dsn: str = ""  # of a server for the state, with {password}
    secrets: dict[str, str] = field(default_factory=dict)
    draw: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self.draw = random.Random(self.seed)
        names = ("key", "secret", "token", "imds")
        names += ("own key", "own secret", "own token", "identity", "agent", "external")
        self.secrets |= {name: canary(self.draw, odd="/+=") for name in names}
        self.secrets["listener"] = canary(self.draw, odd="/+=%")
        self.secrets["environment"] = canary(self.draw)
        self.secrets["seal"] = base64.b64encode(self.draw.randbytes(32)).decode()
        self.secrets.setdefault("state", canary(self.draw, odd="+=!"))

    @property
    def way(self) -> str:
        """Who s3flow is here."""
        return WAYS[self.which]

    def _own(self) -> tuple[dict[str, object], dict[str, str]]:
        """Give the endpoint's part and the environment's for our way."""
        keys = {"access_key_id": "${OWN_KEY}", "secret_access_key": self.secrets["own secret"]}
        environ = {"OWN_KEY": self.secrets["own key"], "OWN_TOKEN": self.secrets["own token"]}
        role = "arn:aws:iam::123456789012:role/mover"
        token = self.folder / "private" / "token"
        match self.way:
            case "keys":
                return keys, environ
            case "session":
                return {**keys, "session_token": "${OWN_TOKEN}"}, environ
            case "role":
                return {**keys, "role_arn": role, "external_id": self.secrets["external"]}, environ
            case "web identity":
                return {"role_arn": role, "web_identity_token_file": str(token)}, environ
            case "container":
                told = {"AWS_CONTAINER_AUTHORIZATION_TOKEN": self.secrets["agent"]}
                return {}, told
            case "profile":
                return {"profile": "mine"}, {}
        return {}, {}

    def program(self, url: str) -> Haunted:
        """Write the world down."""
        private = self.folder / "private"
        private.mkdir(exist_ok=True)
        (private / "token").write_text(self.secrets["identity"])
        (private / "credentials").write_text(
            f"[mine]\naws_access_key_id={self.secrets['own key']}\n"
            f"aws_secret_access_key={self.secrets['own secret']}\n"
        )
        own, environ = self._own()
        endpoint = {"type": "s3", "url": url, "addressing": "path", **own}
        timeouts = {"answer_timeout": "5s", "progress_timeout": "5s"}
        state = self.dsn or "sqlite:///state.db"
        text = document(
            {
                "state": state,
                "listen": f"127.0.0.1:{free_port()}",
                "log_level": "debug",
                "listen_password": "${LISTEN}",
                "log_format": self.draw.choice(("json", "console")),
            },
            {
                "src": {**endpoint, **timeouts},
                "dst": {**endpoint, **timeouts, "customer_key": self.secrets["seal"]},
                "nas": {"type": "local", "path": "nas"},
            },
            [
                {"name": "flow-0", "source": "src:source/", "target": "nas:", "max_attempts": 2},
                {
                    "name": "flow-1",
                    "source": "src:source/",
                    "target": "dst:target/",
                    "method": "stream-only",
                    "max_attempts": 2,
                    "every": "1s",
                },
            ],
        )
        (self.folder / "nas").mkdir(exist_ok=True)
        about = {
            "LISTEN": self.secrets["listener"],
            "UNRELATED": self.secrets["environment"],
            "AWS_SHARED_CREDENTIALS_FILE": str(private / "credentials"),
            "AWS_ENDPOINT_URL_STS": url,
            "AWS_EC2_METADATA_SERVICE_ENDPOINT": url,
            **environ,
        }
        if self.way == "container":
            about["AWS_CONTAINER_CREDENTIALS_FULL_URI"] = f"{url}/agent"
        return Haunted.written(self.folder, text, about)

    # --- ears --------------------------------------------------------------------------------

    def listen(self, what: str, data: bytes) -> None:
        """Search *data*; raises `Broken` when a canary sings."""
        self.told["bytes searched"] += len(data)
        sung = Cage(self.secrets).heard(data)
        if sung:
            raise Broken(f"a secret is in {what} (seed {self.seed}, {self.way}): {sung}")

    def listen_to_files(self) -> None:
        """Search all that s3flow left, and see that it is its own alone."""
        for path in sorted(self.folder.rglob("*")):
            inside = path.relative_to(self.folder).parts
            if inside[0] in ("private", "nas", "config.toml") or not path.is_file():
                continue
            self.told["files searched"] += 1
            self.listen(f"the file {path.name}", path.read_bytes())
            mode = stat.S_IMODE(path.stat().st_mode)
            if mode & PRIVATE and not path.name.startswith("run"):  # those are this programme's
                raise Broken(f"others may read {path.name}: {mode:o} (seed {self.seed})")


def run(task: Task) -> Counter[str]:
    """Haunt one world after the other until the task is over."""
    told: Counter[str] = Counter()
    with _database(task) as server:
        for number, seed in enumerate(task.seeds()):
            with tempfile.TemporaryDirectory(dir=task.folder) as folder:
                haunt(
                    World(Path(folder), seed, task.bug, told, (task.seed + number) % len(WAYS)),
                    server,
                )
            told["seeds"] += 1
    idle = [
        name for name in ("answers that gossip", "commands", "bytes searched") if not told[name]
    ]
    if told["seeds"] and idle:
        raise Broken(f"nothing was provoked: seed {task.seed}: no {', '.join(idle)}")
    return told


@contextlib.contextmanager
def _database(task: Task) -> Iterator[mariadb.MariaDb | None]:
    if task.state == "mysql":
        with mariadb.running() as server:
            yield server
    else:
        yield None


def _settle(world: World, server: mariadb.MariaDb | None) -> None:
    """Give the world a database of its own, named in one of both forms."""
    if server is None:
        return
    name, password = f"s{world.seed}", world.secrets["state"]
    with contextlib.closing(server.connect()) as root, root.cursor() as cursor:
        cursor.execute(f"DROP DATABASE IF EXISTS {name}")
        cursor.execute(f"CREATE DATABASE {name}")
        cursor.execute(f"DROP USER IF EXISTS {name}@'%'")
        cursor.execute(f"CREATE USER {name}@'%%' IDENTIFIED BY %s", (password,))
        cursor.execute(f"GRANT ALL ON {name}.* TO {name}@'%'")
    go = f"{name}:{password}@tcp(127.0.0.1:{server.port})/{name}"
    quoted = (
        password.replace("%", "%25").replace("+", "%2B").replace("=", "%3D").replace("!", "%21")
    )
    url = f"mysql://{name}:{quoted}@127.0.0.1:{server.port}/{name}"
    world.dsn = go if world.seed % 2 else url


def haunt(
    world: World, server: mariadb.MariaDb | None = None, asked: tuple[str, ...] = ASKED
) -> None:
    """Run every command of *asked* in a world, well and badly treated, and listen."""
    _settle(world, server)
    gossip = Gossip(
        world.seed, {name: world.secrets[name] for name in ("key", "secret", "token", "imds")}
    )
    with gossiping(gossip) as url:
        program = world.program(url)
        program.bug = world.bug
        try:
            for command in asked:
                gossip.mischief = world.draw.choice((0.0, 0.2, 0.6))
                _one(world, program, command)
            gossip.mischief = 0.3
            _daemon(world, program)
            program.breaks_down = True
            _one(world, program, "sync")
            program.breaks_down = False
            _misspelled(world, program)
            world.listen_to_files()
        finally:
            program.end()
    world.told += gossip.told


def _one(world: World, program: Haunted, command: str) -> None:
    done = program.run(*command.split(), code=None, PYTHONFAULTHANDLER="1")
    world.told["commands"] += 1
    world.told[f"ended with {done.code}"] += 1
    world.told["breakdowns"] += "what nobody foresaw" in done.err + done.out
    world.listen(f"what `{command}` printed", (done.out + done.err).encode())


def _daemon(world: World, program: Haunted) -> None:
    """Run the daemon, ask it as friend and stranger, look at its process, and abort it."""
    running = program.start("run", PYTHONFAULTHANDLER="1")
    port = 0

    def listening() -> bool:
        nonlocal port
        found = [
            line
            for line in running.err.read_text(errors="replace").splitlines()
            if "listening" in line
        ]
        text = found[0].partition("127.0.0.1:")[2] if found else ""
        port = int("".join(sign for sign in text[:5] if sign.isdigit()) or 0)
        return port > 0

    running.until(lambda: listening() or running.process.poll() is not None)
    if running.process.poll() is None:
        _look(world, running, port)
        running.process.send_signal(signal.SIGABRT)
    running.wait(None)
    said = running.err.read_bytes()
    if b"Current thread" in said:
        world.told["tracebacks of an abort"] += 1
    world.listen("what the daemon said", said + running.out.read_bytes())


def _look(world: World, running: Running, port: int) -> None:
    place = Path(f"/proc/{running.process.pid}")
    for name in ("cmdline", "comm", "status"):
        world.listen(f"/proc/PID/{name}", (place / name).read_bytes())
    login = base64.b64encode(f"s3flow:{world.secrets['listener']}".encode()).decode()
    for path in ("/metrics", "/api/status", "/healthz", "/readyz", "/nowhere"):
        for headers in (
            {},
            {"Authorization": f"Basic {login}"},
            {"Authorization": f"Basic {login}x"},
        ):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
            connection.request("GET", path, headers=headers)
            answer = connection.getresponse()
            world.listen(f"the answer to {path}", str(answer.headers).encode() + answer.read())
            world.told["questions to the API"] += 1
            connection.close()


def _misspelled(world: World, program: Haunted) -> None:
    """Put a mistake into each line of the configuration that holds a secret."""
    good = program.config.read_text()
    private = [value for name, value in world.secrets.items() if value in good]
    private += [world.dsn] if world.dsn else []
    try:
        for value in private:
            line = next(line for line in good.splitlines() if value in line)
            name = line.partition(" = ")[0]
            wrong = world.draw.choice(
                (
                    f"{name}x = {line.partition(' = ')[2]}",
                    f"{name} = [{line.partition(' = ')[2]}]",
                    line[:-1],
                    f'{line[:-1]}:%zz/"',
                    f"[{line.partition(' = ')[2]}]",
                    f"state = {line.partition(' = ')[2]}",
                    f"url = {line.partition(' = ')[2]}",
                )
            )
            program.config.write_text(good.replace(line, wrong))
            _one(world, program, world.draw.choice(("status", "doctor", "sync")))
            world.told["mistakes in the configuration"] += 1
    finally:
        program.config.write_text(good)
    for setting in ("DAEMON__STATE", "ENDPOINTS__SRC__URL", "ENDPOINTS", "DAEMON"):
        name = f"S3FLOW__{setting}"
        value = f"mysql://u:{world.secrets['environment']}@127.0.0.1:{free_port()}/d"
        done = program.run("status", code=None, **{name: value})
        world.told["commands"] += 1
        world.listen(f"what a wrong {name} led to", (done.out + done.err).encode())
