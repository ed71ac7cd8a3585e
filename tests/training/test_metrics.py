"""What a killed and resumed run finds in its measurements."""

import json

import pytest

from planet_rssm.runs.run import METRICS
from planet_rssm.training.metrics import Meter, MetricsLog


def counters(env_steps):
    return {"env_steps": env_steps, "agent_steps": env_steps, "updates": 0, "episodes": 1}


def steps(folder):
    return [json.loads(line)["env_steps"] for line in (folder / METRICS).read_text().splitlines()]


def write(log, *env_steps):
    for step in env_steps:
        log.write("collect", counters(step), 1.0, {"return": 2.0, "returns": [2.0]})


@pytest.fixture
def begun(tmp_path):
    """A log of two synced lines and one that no checkpoint knows; its folder and the offset."""
    log = MetricsLog(tmp_path, 0, 0)
    write(log, 100, 200)
    offset = log.sync()
    write(log, 300)
    log.close()
    assert steps(tmp_path) == [100, 200, 300]
    return tmp_path, offset


def test_a_resumed_log_goes_back_to_its_checkpoint(begun, caplog):
    folder, offset = begun
    log = MetricsLog(folder, offset, 200)
    write(log, 400)
    log.close()
    assert steps(folder) == [100, 200, 400]
    assert not caplog.records


@pytest.mark.parametrize("kept", [0, 1, 1.5, None])  # lines of the checkpoint's two
def test_a_file_shorter_than_the_checkpoint_knew_is_reported_and_not_padded(begun, caplog, kept):
    folder, offset = begun
    path = folder / METRICS
    if kept is None:
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[: int(kept * offset / 2)])
    log = MetricsLog(folder, offset, 200)
    write(log, 400)
    log.close()
    assert steps(folder) == [100][: int(kept or 0)] + [400]
    [record] = caplog.records
    assert record.name == "planet_rssm"
    assert f"the checkpoint knew {offset}" in record.getMessage()


def test_sync_makes_the_events_readable(tmp_path):
    pytest.importorskip("tensorboard", reason="needs tensorboard, extra `report`")
    log = MetricsLog(tmp_path, 0, 0)
    write(log, 100)
    log.sync()
    [events] = (tmp_path / "tensorboard").iterdir()
    assert b"collect/return" in events.read_bytes()
    log.close()


def test_close_closes_the_events_though_the_disk_is_full(tmp_path, monkeypatch):
    pytest.importorskip("tensorboard", reason="needs tensorboard, extra `report`")

    class FullDisk:
        def close(self):
            raise OSError("no space left")

    log = MetricsLog(tmp_path, 0, 0)
    log._file.close()
    closed = []
    monkeypatch.setattr(log, "_file", FullDisk())
    close = log._events.close
    monkeypatch.setattr(log._events, "close", lambda: closed.append(close()))
    with pytest.raises(OSError, match="no space left"):
        log.close()
    assert len(closed) == 1


def test_a_meter_leaves_skipped_updates_out_of_its_means():
    meter = Meter({})
    for values in ({"loss/total": 1.0}, {"skipped": 1.0}, {"loss/total": 3.0}):
        meter.add(values)
    assert meter.drain() == {"loss/total": 2.0}
    assert meter.drain() == {}
