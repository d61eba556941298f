"""`python -m s3flow` and the console script."""

from __future__ import annotations

import os
import signal
import sys

from s3flow import garbage

# How commands end that a stop finds before they have begun: see `process.Ending`.
_STOPPED = {"run": 0, "sync": 75, "scan": 75}


def main() -> None:
    """Run the command line."""
    _end_at_a_stop(sys.argv[1] if len(sys.argv) > 1 else "")
    garbage.collect_seldom()
    # s3flow has no use for pydantic's plugins; it would open the metadata of every installed
    # package to look for them (10 ms).
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")

    from s3flow.cli import app

    app()


def _end_at_a_stop(command: str) -> None:
    """Let a stop end *command* as one, not as a crash, while it imports what it needs: most of a start.

    It ends at once, for nothing has begun. What has is ended by `Work`, which heeds signals itself.
    """
    code = _STOPPED.get(command)
    if code is None:
        return
    for number in (signal.SIGTERM, signal.SIGINT):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, lambda *_: os._exit(code))


if __name__ == "__main__":
    main()
