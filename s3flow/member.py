"""A worker process from its first instruction on. The supervisor starts it; it is no command."""

from __future__ import annotations

import os
import signal
import sys

ORPHANED = 1  # exit code when the supervisor is gone


def command(descriptor: int) -> list[str]:
    """Give the command line of a worker process whose line to the supervisor is at *descriptor*."""
    from pathlib import Path

    import s3flow

    # As it was for this process: only who runs a checkout from its own folder imports from there.
    here = Path(s3flow.__file__).parents[1] == Path.cwd()
    flags = [] if here else ["-P"]
    return [sys.executable, *flags, "-m", __name__, str(descriptor), str(os.getpid())]


def main(arguments: list[str]) -> None:
    """Work for the supervisor until it says to quit, or dies."""
    # A terminal's Ctrl-C and systemd's SIGTERM go to all processes: the supervisor says what follows.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGINT, signal.SIGTERM))
    descriptor, parent = (int(argument) for argument in arguments)
    from s3flow.garbage import collect_seldom
    from s3flow.process import die_with, run_async

    die_with(parent)
    collect_seldom()
    run_async(_work(descriptor))


async def _work(descriptor: int) -> None:
    import asyncio
    import logging
    import pickle
    import socket

    from s3flow import assembly, garbage
    from s3flow.crew.station import Desk, LogForward, Station
    from s3flow.process import allow_open_files
    from s3flow.stores.crc64 import Crc64Nvme

    allow_open_files()
    desk = Desk(lambda: os._exit(ORPHANED))
    link = desk.link
    line = socket.socket(fileno=descriptor)
    await asyncio.get_running_loop().create_unix_connection(lambda: link, sock=line)
    orders: assembly.Orders = pickle.loads(await desk.orders())  # noqa: S301  from our own supervisor
    forward = LogForward(link)
    logging.basicConfig(level=orders.log_level, handlers=[forward], force=True)
    try:
        async with assembly.opened(orders.stores, orders.flows) as wirings:
            station = Station(link, wirings, orders.pace, Crc64Nvme(), assembly.marks_of(wirings))
            garbage.spare_what_is_there()
            await desk.man(station)
    except Exception:
        logging.getLogger(__name__).exception("worker process ends")
        await asyncio.sleep(0)  # the entry goes out by a call of the loop's
        raise
    finally:
        link.flush()


if __name__ == "__main__":
    main(sys.argv[1:])
