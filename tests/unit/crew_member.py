"""A worker process for tests: it moves nothing, and answers, dies or hangs as its orders say."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import time
from pathlib import Path

from s3flow.crew import messages as say
from s3flow.crew.link import Link, Message
from s3flow.model import Change, Proof, State, Transfer, Verdict


class Member:
    """Verifies every transfer; *trouble* comes once, or always without the file *once*."""

    def __init__(self) -> None:
        self.link = Link(self.hear, lambda: os._exit(1))
        self.trouble = ""
        self.given = 0
        self.asking: Transfer | None = None
        self.quit = asyncio.Event()

    def hear(self, batch: list[Message]) -> None:
        for message in batch:
            if message[0] == say.ORDERS:
                self.begin(*message[1].decode().split("|"))
            elif message[0] == say.WORK:
                self.work(say.unpack_transfer(message))
            elif message[0] == say.VERDICT:
                verdict = say.unpack_verdict(message)
                told = f"heard that {verdict.bucket} is {verdict.way}"
                self.link.send((say.LOGGED, "s3flow.test", 30, told))
            elif message[0] == say.REMEMBERED:
                os._exit(9)  # between the answer and the first part
            elif message[0] == say.QUIT:
                self.quit.set()

    def begin(self, trouble: str, once: str) -> None:
        if not once or not Path(once).exists():
            self.trouble = trouble
        if once:
            Path(once).touch()
        if self.trouble == "dead":
            os._exit(9)
        if self.trouble != "mute":
            self.link.send((say.READY, {"dst": b".mark-"}))

    def work(self, transfer: Transfer) -> None:
        self.given += 1
        if self.trouble == "mute":
            return
        self.link.send((say.STARTED, transfer.id))
        if self.trouble == "finds" and self.given == 1:
            ends = time.time() + 3600
            self.link.send(
                say.pack_verdict(
                    Verdict(transfer.flow, "from", "objects", "streamed", "no (403)", 1.0, ends)
                )
            )
        if self.trouble == "dies" and self.given == 3:
            self.link.send((say.LOGGED, "s3flow.test", 40, "last words"))
            self.link.flush()
            os._exit(9)
        if self.trouble == "asks":
            self.link.send((say.REMEMBER, 1, transfer.id, "upload-1", 1000))
            return
        change = Change(transfer, State.VERIFIED, method="put", proof=Proof.ETAG, attempts=1)
        if transfer.upload_id:
            change.message = transfer.upload_id
        durable = transfer.id % 2 == 0
        self.link.send((say.MOVED, transfer.flow, transfer.size, transfer.size))
        self.link.send((say.ENDED, 0.01, durable, say.pack_change(change)))
        if not durable and self.trouble != "loses":
            self.link.send((say.SETTLED, [transfer.id]))


async def main() -> None:
    member = Member()
    line = socket.socket(fileno=int(sys.argv[1]))
    await asyncio.get_running_loop().create_unix_connection(lambda: member.link, sock=line)
    await member.quit.wait()


if __name__ == "__main__":
    asyncio.run(main())
