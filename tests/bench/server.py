"""nginx with Lua as an S3 server that is never the bottleneck: plain HTTP and TLS, true MD5 ETags."""

from __future__ import annotations

import contextlib
import functools
import http.client
import json
import os
import resource
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol

from tests.bench.install import apt_install
from tests.servers import (
    HOST,
    ServerFailedError,
    ServerMissingError,
    end,
    free_port,
    spawn,
    tail,
    wait_until,
)

PACKAGES = ("nginx-light", "libnginx-mod-http-lua", "openssl")
_HERE = Path(__file__).parent
_CONF = """\
load_module {modules}/ndk_http_module.so;
load_module {modules}/ngx_http_lua_module.so;
{user}
daemon off;
worker_processes {workers};
worker_rlimit_nofile {files};
pid {folder}/nginx.pid;
error_log {folder}/error.log warn;
events {{ worker_connections 8192; }}
http {{
  lua_package_path "{lua}/?.lua;;";
  lua_shared_dict stored 512m;
  lua_shared_dict md5s 16m;
  lua_socket_buffer_size 128k;
  init_by_lua_block {{ s3 = require "s3"; s3.load("{data}") }}
  init_worker_by_lua_block {{ s3.end_with_parent() }}
  access_log off;
  server_tokens off;
  etag off;
  keepalive_requests 1000000000;
  keepalive_timeout 600s;
  client_max_body_size 0;
  client_body_buffer_size 64k;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  sendfile on;
  sendfile_max_chunk 512k;  # so that one fast client does not starve the others of its worker
  tcp_nopush on;
  merge_slashes off;
  server {{
    listen {host}:{plain} reuseport backlog=4096;
    listen {host}:{tls} ssl reuseport backlog=4096;
    {usual}
    ssl_certificate {folder}/server.pem;
    ssl_certificate_key {folder}/server.key;
    ssl_protocols TLSv1.3;
    # What S3 itself negotiates, and one cipher for all: clients differ in their preferences.
    ssl_conf_command Ciphersuites TLS_AES_128_GCM_SHA256;
    location / {{ content_by_lua_block {{ s3.serve() }} }}
    location /_files/ {{ internal; alias {data}/; }}
  }}
}}
"""


@dataclass(frozen=True, slots=True)
class Held:
    """What a target holds of its source's objects, compared byte by byte."""

    equal: int
    unequal: int
    bytes: int


class Endpoint(Protocol):
    """What the benchmark needs of a server."""

    @property
    def name(self) -> str: ...

    @property
    def has_tls(self) -> bool: ...

    @property
    def access_key(self) -> str: ...

    @property
    def secret_key(self) -> str: ...

    @property
    def ca_file(self) -> Path: ...

    def url(self, *, tls: bool) -> str: ...

    def usual_url(self, *, tls: bool) -> str: ...

    def reset(self) -> None: ...

    def held(self, bucket: str) -> Held: ...

    def first_byte(self) -> float: ...

    def cpu_seconds(self) -> float: ...


@dataclass(frozen=True)
class BenchServer:
    """The running nginx."""

    name: ClassVar[str] = "nginx"
    has_tls: ClassVar[bool] = True
    access_key: ClassVar[str] = "BENCHACCESSKEY"  # signatures are not checked
    secret_key: ClassVar[str] = "benchsecretkey"

    plain: int
    tls: int
    ca_file: Path
    pid: int
    has_usual_ports: bool  # 80 and 443 as well, for the client that knows no others

    def url(self, *, tls: bool) -> str:
        """Give the endpoint's URL."""
        return f"https://{HOST}:{self.tls}" if tls else f"http://{HOST}:{self.plain}"

    def usual_url(self, *, tls: bool) -> str:
        """Give the URL without a port; empty when others had these ports."""
        return f"{'https' if tls else 'http'}://{HOST}" if self.has_usual_ports else ""

    def reset(self) -> None:
        """Forget what the targets hold."""
        self._ask("/_bench/reset")

    def held(self, bucket: str) -> Held:
        """Say what the target *bucket* holds."""
        found = json.loads(self._ask(f"/_bench/summary/{bucket}"))
        return Held(found["equal"], found["unequal"], found["bytes"])

    def first_byte(self) -> float:
        """Say when the first object was asked for since the last `reset` (seconds since the epoch)."""
        return float(json.loads(self._ask("/_bench/first"))["at"])

    def cpu_seconds(self) -> float:
        """Give the CPU time that the workers have used, user and system."""
        ticks = 0
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        for child in (str(self.pid), *children):
            fields = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")

    def _ask(self, path: str) -> bytes:
        with contextlib.closing(http.client.HTTPConnection(HOST, self.plain)) as connection:
            connection.request("GET", path)
            answer = connection.getresponse()
            body = answer.read()
        if answer.status != 200:
            raise ServerFailedError(f"nginx answered {path} with {answer.status}: {body[:200]!r}")
        return body


def nginx_modules() -> Path:
    """Give the folder of nginx's modules, once all that is needed is there."""
    if (found := _installed()) is None and apt_install(*PACKAGES):
        found = _installed()
    if found is None:
        raise ServerMissingError(
            f"nginx with Lua, or openssl, is not installed: sudo apt-get install {' '.join(PACKAGES)}"
        )
    return found


def _installed() -> Path | None:
    if shutil.which("nginx") and shutil.which("openssl"):
        for folder in ("/usr/lib/nginx/modules", "/usr/lib64/nginx/modules"):
            if (Path(folder) / "ngx_http_lua_module.so").exists():
                return Path(folder)
    return None


def _openssl(folder: Path, *words: str) -> None:
    subprocess.run(("openssl", *words), cwd=folder, check=True, capture_output=True)


def make_certificates(folder: Path) -> Path:
    """Make an authority and a certificate for 127.0.0.1 in *folder*; gives the authority's file."""
    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "3650")
    (folder / "ext").write_text(
        f"subjectAltName=IP:{HOST},DNS:localhost\nbasicConstraints=CA:FALSE\n"
        "subjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n"
    )
    authority = ("-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=s3flow bench authority")
    # Without it Python 3.13 refuses the authority.
    authority += ("-addext", "keyUsage=critical,keyCertSign")
    _openssl(folder, "req", "-x509", *curve, *authority)
    asked = ("-keyout", "server.key", "-out", "server.csr", "-subj", f"/CN={HOST}")
    _openssl(folder, "req", *curve[:-2], *asked)
    signed = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-extfile", "ext")
    _openssl(
        folder, "x509", "-req", "-in", "server.csr", "-out", "server.pem", "-days", "3650", *signed
    )
    return folder / "ca.pem"


@contextlib.contextmanager
def nginx(data: Path, workers: int = 2) -> Iterator[BenchServer]:
    """Run the server over the object sets in *data* until the block ends."""
    modules = nginx_modules()
    with tempfile.TemporaryDirectory(prefix="s3flow-bench-nginx-") as temporary:
        folder = Path(temporary)
        ca_file = make_certificates(folder)
        plain, tls, has_usual = free_port(), free_port(), _can_bind(80) and _can_bind(443)
        conf = _CONF.format(
            modules=modules,
            user="user root;" if os.geteuid() == 0 else "",
            workers=workers,
            files=resource.getrlimit(resource.RLIMIT_NOFILE)[1],
            folder=folder,
            lua=_HERE / "nginx",
            data=data,
            host=HOST,
            plain=plain,
            tls=tls,
            usual=f"listen {HOST}:80; listen {HOST}:443 ssl;" if has_usual else "",
        )
        (folder / "nginx.conf").write_text(conf)
        process = spawn(("nginx", "-p", str(folder), "-c", str(folder / "nginx.conf")), folder)
        server = BenchServer(plain, tls, ca_file, process.pid, has_usual)
        try:
            wait_until(functools.partial(_listens, server), process, folder / "log")
            yield server
            _report_errors(folder / "error.log")
        finally:
            end(process)


def _can_bind(port: int) -> bool:
    try:
        socket.create_server((HOST, port)).close()
    except OSError:
        return False
    return True


def _listens(server: BenchServer) -> bool:
    try:
        server.reset()
    except (OSError, http.client.HTTPException):
        return False
    return True


def _report_errors(log: Path) -> None:
    """Show what went wrong inside the server: its clients only saw a 500."""
    if log.exists() and log.stat().st_size:
        print(f"nginx reported: {tail(log)}", flush=True)
