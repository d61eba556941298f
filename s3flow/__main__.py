"""`python -m s3flow` and the console script."""

from __future__ import annotations

import os

from s3flow import garbage


def main() -> None:
    """Run the command line."""
    garbage.collect_seldom()
    # s3flow has no use for pydantic's plugins; it would open the metadata of every installed
    # package to look for them (10 ms).
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")

    from s3flow.cli import app

    app()


if __name__ == "__main__":
    main()
