"""TLS in front of a server that speaks plain HTTP: nginx, which passes on what it gets as it is."""

from __future__ import annotations

import contextlib
import functools
import os
import resource
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from tests.bench.server import make_certificates, nginx_modules
from tests.servers import HOST, end, free_port, spawn, wait_until

# The address and the Host header stay as the client wrote them: it signed both.
_CONF = """\
{user}
daemon off;
worker_processes 2;
worker_rlimit_nofile {files};
pid {folder}/nginx.pid;
error_log {folder}/error.log warn;
events {{ worker_connections 8192; }}
http {{
  access_log off;
  client_max_body_size 0;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  keepalive_requests 1000000000;
  keepalive_timeout 600s;
  upstream store {{ server {behind}; keepalive 256; keepalive_requests 1000000000; }}
  server {{
    listen {host}:{port} ssl reuseport backlog=4096;
    ssl_certificate {folder}/server.pem;
    ssl_certificate_key {folder}/server.key;
    ssl_protocols TLSv1.3;
    ssl_conf_command Ciphersuites TLS_AES_128_GCM_SHA256;
    location / {{
      proxy_pass http://store;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_set_header Host $http_host;
      proxy_request_buffering off;
      proxy_buffering off;
      proxy_read_timeout 600s;
    }}
  }}
}}
"""


class Front(NamedTuple):
    """Where TLS is spoken, and the file of the authority that vouches for it."""

    url: str
    ca_file: Path


@contextlib.contextmanager
def tls_front(url: str) -> Iterator[Front]:
    """Speak TLS for the server at *url* until the block ends. Raises `ServerMissingError`."""
    nginx_modules()
    with tempfile.TemporaryDirectory(prefix="s3flow-bench-front-") as temporary:
        folder = Path(temporary)
        ca_file = make_certificates(folder)
        port = free_port()
        conf = _CONF.format(
            user="user root;" if os.geteuid() == 0 else "",
            files=resource.getrlimit(resource.RLIMIT_NOFILE)[1],
            folder=folder,
            behind=urlsplit(url).netloc,
            host=HOST,
            port=port,
        )
        (folder / "nginx.conf").write_text(conf)
        process = spawn(("nginx", "-p", str(folder), "-c", str(folder / "nginx.conf")), folder)
        try:
            wait_until(functools.partial(_listens, port), process, folder / "log")
            yield Front(f"https://{HOST}:{port}", ca_file)
        finally:
            end(process)


def _listens(port: int) -> bool:
    try:
        socket.create_connection((HOST, port), timeout=1.0).close()
    except OSError:
        return False
    return True
