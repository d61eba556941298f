"""Metrics: read back through Prometheus' own parser, as a scraper would."""

from __future__ import annotations

import asyncio
import time

from prometheus_client import REGISTRY
from prometheus_client.parser import text_string_to_metric_families

from s3flow import events
from s3flow.model import Change, Sample, ScanSummary, State, Total, Transfer, Verdict
from s3flow.observe.metrics import Metrics, watch_loop
from s3flow.observe.progress import snapshot
from tests.unit.test_observe_progress import FLOW, NOW

NAMES = {
    "s3flow_objects",
    "s3flow_methods",
    "s3flow_routes",
    "s3flow_bytes",
    "s3flow_transfer_seconds",
    "s3flow_inflight_transfers",
    "s3flow_backlog_objects",
    "s3flow_backlog_bytes",
    "s3flow_throughput_bytes_per_second",
    "s3flow_eta_seconds",
    "s3flow_retries",
    "s3flow_throttled",
    "s3flow_concurrency_limit",
    "s3flow_flow_blocked",
    "s3flow_scans",
    "s3flow_scrubbed",
    "s3flow_scan_failures",
    "s3flow_deletes_held",
    "s3flow_cost_spent",
    "s3flow_cost_max",
    "s3flow_sources_kept",
    "s3flow_unlisted_buckets",
    "s3flow_scan_last_finished_timestamp_seconds",
    "s3flow_tasks",
    "s3flow_loop_lag_seconds",
    "s3flow_loop_blocks",
    "s3flow_loop_blocked_seconds",
    "s3flow_worker_processes",
    "s3flow_worker_restarts",
    "s3flow_worker_cpu_seconds",
    "s3flow_build_info",
}


def transfer(key: bytes = b"secret-name", size: int = 10) -> Transfer:
    return Transfer(
        id=1,
        flow="docs",
        bucket="b",
        key=key,
        size=size,
        etag="e",
        modified=0,
        storage_class="STANDARD",
        state=State.TRANSFERRING,
        generation=1,
        attempts=0,
        upload_id=None,
        part_size=None,
    )


def samples(metrics: Metrics) -> dict[tuple[str, ...], float]:
    """Give every sample by its name and its labels' values, in the order of the labels' names."""
    found = {}
    for family in text_string_to_metric_families(metrics.render().decode()):
        for sample in family.samples:
            labels = (value for _, value in sorted(sample.labels.items()))
            found[(sample.name, *labels)] = sample.value
    return found


def test_families_have_advice_and_no_global_registry() -> None:
    metrics = Metrics()
    families = {one.name: one for one in text_string_to_metric_families(metrics.render().decode())}
    assert set(families) - {name for name in families if name.startswith("process_")} == NAMES
    assert "process_cpu_seconds" in families
    assert all(len(families[name].documentation) > 30 for name in NAMES)
    assert not any(one.name in NAMES for one in REGISTRY.collect())


def test_a_streamed_object() -> None:
    metrics = Metrics()
    metrics(events.TransferStarted(transfer()))
    assert samples(metrics)["s3flow_inflight_transfers", "docs"] == 1
    metrics(events.BytesMoved("docs", 10))
    change = Change(transfer(), State.VERIFIED, method="put", proof="etag")
    metrics(events.TransferEnded(change, 0.02))
    metrics(events.Recorded([change]))
    found = samples(metrics)
    assert found["s3flow_inflight_transfers", "docs"] == 0
    assert found["s3flow_bytes_total", "read", "docs"] == 10
    assert found["s3flow_bytes_total", "written", "docs"] == 10
    assert found["s3flow_objects_total", "docs", "verified"] == 1
    assert found["s3flow_transfer_seconds_bucket", "docs", "0.01", "put"] == 0
    assert found["s3flow_transfer_seconds_bucket", "docs", "0.025", "put"] == 1
    assert found["s3flow_transfer_seconds_bucket", "docs", "+Inf", "put"] == 1
    assert found["s3flow_transfer_seconds_count", "docs", "put"] == 1
    assert found["s3flow_transfer_seconds_sum", "docs", "put"] == 0.02


def test_worker_processes() -> None:
    metrics = Metrics()
    for number in range(2):
        metrics(events.WorkerStarted(number, 100 + number))
        metrics(events.WorkerPulse(number, 0.5, 0.0))
    metrics(events.WorkerPulse(1, 0.25, 0.75))
    metrics(events.WorkerEnded(0, "by signal 9", 3, 0.1))
    found = samples(metrics)
    assert found["s3flow_worker_processes",] == 1
    assert found["s3flow_worker_restarts_total",] == 1
    assert found["s3flow_worker_cpu_seconds_total", "0"] == 0.5
    assert found["s3flow_worker_cpu_seconds_total", "1"] == 0.75
    assert found["s3flow_loop_lag_seconds",] == 0.75


def test_a_copy_inside_the_store_reads_nothing() -> None:
    metrics = Metrics()
    metrics(events.BytesMoved("docs", 10))
    change = Change(transfer(), State.VERIFIED, method="server_copy")
    metrics(events.TransferEnded(change, 9_000.0))
    found = samples(metrics)
    assert ("s3flow_bytes_total", "read", "docs") not in found
    assert found["s3flow_transfer_seconds_bucket", "docs", "7200.0", "server_copy"] == 0
    assert found["s3flow_transfer_seconds_bucket", "docs", "+Inf", "server_copy"] == 1


def test_outcomes_are_counted_when_they_are_durable_and_final() -> None:
    metrics = Metrics()
    states = [State.FAILED, State.SKIPPED, State.DELETED, State.DISCOVERED, State.FAILED]
    metrics(events.Recorded([Change(transfer(), state) for state in states]))
    metrics(events.PageMerged("docs", "b", listed=9, new=5, changed=0, adopted=4))
    found = samples(metrics)
    counted = {key[2]: value for key, value in found.items() if key[0] == "s3flow_objects_total"}
    assert counted == {"failed": 2, "skipped": 1, "deleted": 1, "verified": 4}


def test_methods_and_ways_say_what_went_inside_the_store() -> None:
    metrics = Metrics()
    done = [
        Change(transfer(), State.VERIFIED, method=method)
        for method in ("server_copy", "server_copy", "put")
    ]
    deleted = Change(transfer(), State.DELETED, method="server_copy")
    metrics(events.Recorded([*done, deleted, Change(transfer(), State.FAILED)]))
    adopted = events.Decided(State.VERIFIED, "", "adopted", "etag", 4, 40)
    skipped = events.Decided(State.SKIPPED, "excluded", "", "", 3, 30)
    metrics(events.PageMerged("docs", "b", 9, 7, 0, 4, (adopted, skipped)))
    for bucket, way in (("a", "streamed"), ("b", "source's credentials"), ("a", "streamed")):
        metrics(events.RouteDecided(Verdict("docs", bucket, "objects", way, "why", 1.0, 2.0)))
    found = samples(metrics)
    assert found["s3flow_methods_total", "docs", "server_copy"] == 2
    assert found["s3flow_methods_total", "docs", "put"] == 1
    assert found["s3flow_methods_total", "docs", "adopted"] == 4
    assert found["s3flow_objects_total", "docs", "skipped"] == 3
    assert found["s3flow_objects_total", "docs", "verified"] == 7
    assert found["s3flow_routes", "docs", "streamed"] == 1
    assert found["s3flow_routes", "docs", "source's credentials"] == 1
    # What was refused may be allowed later.
    works = Verdict("docs", "a", "objects", "target's credentials", "", 3.0, 4.0)
    metrics(events.RouteDecided(works))
    assert ("s3flow_routes", "docs", "streamed") not in samples(metrics)


def test_trouble() -> None:
    metrics = Metrics(clock=lambda: 1234.5)
    metrics(events.Retried(transfer(), "stalled", "no bytes", 1.0))
    metrics(events.ThrottleChanged("src", 32, throttled=True))
    metrics(events.ThrottleChanged("src", 33, throttled=False))
    metrics(events.FlowBlocked("docs", "target_full", "no room", 30.0))
    metrics(events.ScanFinished("docs", 10, 2.0))
    metrics.loop_lag(0.25)
    metrics.loop_lag(0.0)
    for seconds in (0.5, 0.25):
        metrics(events.LoopHeld(seconds, "s3flow.engine.plan.rivals", "lines"))
    found = samples(metrics)
    assert found["s3flow_loop_blocks_total", "s3flow.engine.plan.rivals"] == 2
    assert found["s3flow_loop_blocked_seconds_total", "s3flow.engine.plan.rivals"] == 0.75
    assert found["s3flow_retries_total", "docs", "stalled"] == 1
    assert found["s3flow_throttled_total", "src"] == 1
    assert found["s3flow_concurrency_limit", "src"] == 33
    assert found["s3flow_flow_blocked", "docs", "target_full"] == 1
    assert found["s3flow_scans_total", "docs"] == 1
    assert found["s3flow_scan_last_finished_timestamp_seconds", "docs"] == 1234.5
    assert found[("s3flow_loop_lag_seconds",)] == 0.25
    metrics(events.FlowUnblocked("docs", "target_full"))
    assert samples(metrics)["s3flow_flow_blocked", "docs", "target_full"] == 0


def test_backlog_and_estimates_come_from_snapshots() -> None:
    totals = [
        Total("b", State.DISCOVERED, "", "", "", 7, 700),
        Total("b", State.RESTORING, "", "", "", 1, 50),
        Total("c", State.DISCOVERED, "", "", "", 1, 50),
    ]
    work = [Sample(NOW - 2, 0, 0), Sample(NOW - 1, 1, 100), Sample(NOW, 2, 200)]
    scan = ScanSummary(finished=77.0, unfinished=True, listed=9)
    taken = [snapshot(FLOW, totals, work, {}, scan, NOW)]
    metrics = Metrics(lambda: taken)
    found = samples(metrics)
    assert found["s3flow_backlog_objects", "docs", "discovered"] == 8
    assert found["s3flow_backlog_bytes", "docs", "discovered"] == 750
    assert found["s3flow_backlog_objects", "docs", "restoring"] == 1
    assert found["s3flow_throughput_bytes_per_second", "docs"] == 100
    assert found["s3flow_eta_seconds", "docs", "0.5"] == 9
    assert found["s3flow_eta_seconds", "docs", "0.9"] == 9
    assert found["s3flow_scan_last_finished_timestamp_seconds", "docs"] == 77


def test_an_unknown_estimate_is_absent() -> None:
    totals = [Total("b", State.DISCOVERED, "", "", "", 7, 700)]
    metrics = Metrics(lambda: [snapshot(FLOW, totals, [], {}, None, NOW)])
    assert not any(key[0] == "s3flow_eta_seconds" for key in samples(metrics))


def test_labels_that_prometheus_keeps_for_itself_are_not_used() -> None:
    totals = [Total("b", State.DISCOVERED, "", "", "", 1, 1)]
    work = [Sample(NOW - 1, 0, 0), Sample(NOW, 1, 1)]
    metrics = Metrics(lambda: [snapshot(FLOW, totals, work, {}, None, NOW)])
    for family in text_string_to_metric_families(metrics.render().decode()):
        labels = {name for sample in family.samples for name in sample.labels}
        assert family.type == "summary" or "quantile" not in labels
        assert family.type == "histogram" or "le" not in labels


def test_no_key_or_message_becomes_a_label() -> None:
    metrics = Metrics()
    moved = transfer(b'secret-name\n"x')
    change = Change(moved, State.FAILED, "access_denied", "secret-message", upload_id="secret-id")
    for event in (
        events.TransferStarted(moved),
        events.TransferEnded(change, 1.0),
        events.Recorded([change]),
        events.Retried(moved, "stalled", "secret-message", 1.0),
        events.BucketFailed("docs", "secret-bucket", "access_denied", "secret-message"),
        events.FlowBlocked("docs", "target_full", "secret-message", 1.0),
        events.UploadAborted("docs", "secret-id"),
        events.Warned("docs", "secret-message"),
    ):
        metrics(event)
    assert b"secret" not in metrics.render()


async def test_a_blocked_loop_is_seen() -> None:
    late: list[float] = []
    watcher = asyncio.create_task(watch_loop(late.append, 0.01))
    await asyncio.sleep(0)
    time.sleep(0.05)  # what must never happen in the product
    while not late:
        await asyncio.sleep(0.005)
    watcher.cancel()
    await asyncio.gather(watcher, return_exceptions=True)
    assert late[0] >= 0.03
