"""What the server's and the driver's errors mean: try again, connect again, wait, or give up."""

from __future__ import annotations

import asyncio
import ssl
from enum import Enum

from pymysql.constants import CR, ER
from pymysql.err import Error, InterfaceError, InternalError

from s3flow.errors import StateAway, StateError


class Cure(Enum):
    """What may help."""

    REPEAT = "the same transaction again"
    RECONNECT = "the same again over a new connection"
    WAIT = "the same again when somebody has mended the server"
    NONE = "nothing: it is refused for good, or a bug"


CONNECTION_KILLED = 1927  # MariaDB's
IDLE_TOO_LONG = 4031  # MySQL's since 8.0.24
NOT_READY = 1047  # Galera's: the node is not in step with the others
RECORD_CHANGED = 1020  # MariaDB's with innodb_snapshot_isolation
TLS_DEMANDED = 3159
READ_ONLY_MODE = 1836
READ_ONLY_TRANSACTION = 1792
HOOK_FAILED = 3100  # MySQL's group replication: this server has left its group, or fell behind
ROLLED_BACK_BY_GROUP = 3101  # and another server's transaction came first
UNLOGGABLE = 1665
SERVER_ASSERTS = 2055  # lost connection at '%s', system error
DISK_FULL = 1021
TABLE_FULL = 1114

_REPEATED = {ER.LOCK_DEADLOCK, ER.LOCK_WAIT_TIMEOUT, RECORD_CHANGED, ROLLED_BACK_BY_GROUP}
# A server that takes no writes any more may have given its place, and its name, to another one:
# what is connected to it stays there, so whoever waits has to look for the other.
_READ_ONLY = {ER.OPTION_PREVENTS_STATEMENT, READ_ONLY_MODE, READ_ONLY_TRANSACTION}
_RECONNECTED = {
    CR.CR_SERVER_GONE_ERROR,
    CR.CR_SERVER_LOST,
    CR.CR_COMMANDS_OUT_OF_SYNC,
    CR.CR_CONNECTION_ERROR,
    CR.CR_CONN_HOST_ERROR,
    CR.CR_UNKNOWN_HOST,
    SERVER_ASSERTS,
    ER.SERVER_SHUTDOWN,
    ER.ABORTING_CONNECTION,
    ER.NEW_ABORTING_CONNECTION,
    ER.NET_READ_ERROR,
    ER.NET_READ_INTERRUPTED,
    ER.NET_ERROR_ON_WRITE,
    ER.NET_WRITE_INTERRUPTED,
    ER.QUERY_INTERRUPTED,
    CONNECTION_KILLED,
    IDLE_TOO_LONG,
    NOT_READY,
    ER.CON_COUNT_ERROR,
    ER.TOO_MANY_USER_CONNECTIONS,
    HOOK_FAILED,
    *_READ_ONLY,
}
_REMEDIES = {
    **dict.fromkeys(_READ_ONLY, "the server is read-only: work goes on when it takes writes again"),
    DISK_FULL: "make room on the server's disk; nothing was half written and work goes on after",
    TABLE_FULL: "make room on the server's disk; nothing was half written and work goes on after",
}
_REFUSALS = {
    ER.ACCESS_DENIED_ERROR: "the server knows no such user with this password from this machine:"
    " check user and password in the state's address",
    1698: "the server knows no such user with this password from this machine:"
    " check user and password in the state's address",
    ER.DBACCESS_DENIED_ERROR: "the user may not use this schema:"
    " GRANT ALL ON {database}.* TO the user",
    ER.BAD_DB_ERROR: "there is no such schema: CREATE DATABASE {database} on the server,"
    " or correct the state's address",
    ER.TABLEACCESS_DENIED_ERROR: "GRANT ALL ON {database}.* TO the user",
    ER.HOST_NOT_PRIVILEGED: "the server takes no connections from this machine:"
    " create the user for this host as well",
    ER.HOST_IS_BLOCKED: "run FLUSH HOSTS on the server",
    ER.NO_SUCH_TABLE: "the schema was emptied or made anew: restore it from a backup; or drop it, create"
    " it and start again: what is at the target is then compared and adopted, not copied again",
    UNLOGGABLE: "set binlog_format to MIXED or ROW on the server",
    TLS_DEMANDED: "the server demands TLS: add tls=true to the state's address",
    ER.CON_COUNT_ERROR: "raise the server's max_connections, or end what else holds them",
    ER.TOO_MANY_USER_CONNECTIONS: "raise the user's connection limit",
    CR.CR_CONN_HOST_ERROR: "see that the server runs and is reachable from here, and that host"
    " and port in the state's address are right",
}


def number_of(error: BaseException) -> int:
    """Give the error's number, 0 if it has none."""
    first = error.args[0] if error.args else 0
    return first if isinstance(first, int) else 0


def cure(error: BaseException) -> Cure:
    """Say what may help against an error of a statement or of a connection."""
    if isinstance(error, OSError | EOFError | TimeoutError | asyncio.IncompleteReadError):
        return Cure.RECONNECT
    number = number_of(error)
    if number in _REPEATED:
        return Cure.REPEAT
    if number in _RECONNECTED or isinstance(error, InterfaceError):
        return Cure.RECONNECT
    if number in _REMEDIES:
        return Cure.WAIT
    if isinstance(error, InternalError) and not number:
        return Cure.RECONNECT  # the driver's own: packets out of order
    return Cure.NONE


def explain(error: BaseException, address: object, database: str) -> StateError:
    """Say in words what happened and what to do about it. Passwords are in no message of these."""
    number = number_of(error)
    if isinstance(error, ssl.SSLError) or isinstance(error.__cause__, ssl.SSLError):
        reason = error if isinstance(error, ssl.SSLError) else error.__cause__
        return StateError(
            f"state {address}: TLS failed: {reason}; name the authority that signed the server's"
            " certificate as its CA file, or use tls=skip-verify if nobody can be in between"
        )
    if isinstance(error, TimeoutError):
        number, message = CR.CR_CONN_HOST_ERROR, "the server does not answer"
    elif isinstance(error, Error) and len(error.args) > 1:
        message = f"{error.args[1]} ({number})"
    else:
        message = str(error) or type(error).__name__
    cause = error.__cause__
    if isinstance(cause, OSError):
        message += f": {cause.strerror or str(cause) or 'no answer in time'}"
    passes = cure(error) is not Cure.NONE
    remedy = _REMEDIES.get(number) or _REFUSALS.get(number)
    if remedy is None and passes:
        remedy = "it is tried again"
    remedy = remedy or "this is a bug in s3flow if its tables were not altered by hand"
    kind = StateAway if passes else StateError
    return kind(f"state {address}: {message}; {remedy.format(database=database)}")
