"""Strips that outlive the process that made them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from core.errors import OutputError, RasterError, ReadError
from core.jobs.events import JobContext
from core.jobs.outputs import keeping_strips
from core.mapping.journal import StripJournal, has_strips, journal_bytes, journal_folder, remove_journal
from core.scenes.grid import Window

ROOT = Path(__file__).parents[3]
FIRST, SECOND = Window(0, 0, 5, 4), Window(5, 4, 3, 4)
IDENTITY = {"the model": "a", "'one.tif'": [10, 20]}


def strip(seed: int) -> list[np.ndarray]:
    generator = np.random.default_rng(seed)
    return [generator.integers(0, 255, (1, 4, 5), np.uint8), generator.random((3, 4, 5), np.float32), np.arange(256)]


def begun(path: Path, identity: dict[str, object] = IDENTITY, created: str = "now") -> StripJournal:
    return StripJournal(path, identity, {"created": created})


def test_strips_and_facts_come_back(tmp_path: Path) -> None:
    path = tmp_path / "map.tif"
    assert journal_bytes(path) == 0
    with begun(path) as journal:
        assert (journal.changed, journal.count, journal.is_second_run, FIRST in journal) == ([], 0, False, False)
        journal.add(FIRST, strip(1))
        assert FIRST in journal
        assert SECOND not in journal
    assert journal_bytes(path) > sum(array.nbytes for array in strip(1))
    with begun(path, created="later") as journal:
        assert (journal.changed, journal.count, journal.is_second_run, journal.facts) == ([], 1, True, {"created": "now"})
        for found, expected in zip(journal.read(FIRST), strip(1), strict=True):
            np.testing.assert_array_equal(found, expected)
        journal.remove()
    assert list(tmp_path.iterdir()) == []


def test_what_changed_is_named_and_nothing_is_mixed_in(tmp_path: Path) -> None:
    path = tmp_path / "map.tif"
    with begun(path) as journal:
        journal.add(FIRST, strip(1))
    other = {"the model": "a", "'one.tif'": [10, 21], "the mask": "m.gpkg"}
    with begun(path, other, "later") as journal:
        assert sorted(journal.changed) == ["'one.tif'", "the mask"]
        assert (journal.count, journal.facts) == (0, {"created": "later"})
        assert FIRST not in journal
    with begun(path, IDENTITY) as journal:
        assert sorted(journal.changed) == ["'one.tif'", "the mask"]


@pytest.mark.parametrize("damage", [lambda data: data[:-30], lambda data: b"", lambda data: data[:200] + b"xx" + data[202:]])
def test_a_strip_that_a_power_cut_has_spoilt_is_made_again(tmp_path: Path, damage) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "map.tif"
    with begun(path) as journal:
        journal.add(FIRST, strip(1))
        journal.add(SECOND, strip(2))
    spoilt = journal_folder(path) / "0_0_5_4.npz"
    spoilt.write_bytes(damage(spoilt.read_bytes()))
    (journal_folder(path) / "5_8_3_4.npz.0a.part").write_bytes(b"half")
    with begun(path) as journal:
        assert (journal.count, FIRST in journal, SECOND in journal) == (1, False, True)
    assert not list(journal_folder(path).glob("*.part"))


def test_a_head_that_cannot_be_read_begins_anew(tmp_path: Path) -> None:
    path = tmp_path / "map.tif"
    with begun(path) as journal:
        journal.add(FIRST, strip(1))
    for text in ("", "[]", json.dumps({"identity": 1})):
        (journal_folder(path) / "journal.json").write_text(text)
        with begun(path) as journal:
            assert (journal.count, FIRST in journal) == (0, False)
            journal.add(FIRST, strip(1))


def test_two_processes_do_not_make_one_map(tmp_path: Path) -> None:
    path = tmp_path / "map.tif"
    with begun(path), pytest.raises(OutputError, match="being made by another process"), begun(path):
        pass
    remove_journal(path)
    assert list(tmp_path.iterdir()) == []


SECOND_START = """
import sys
from pathlib import Path
from core.errors import OutputError
from core.jobs.events import JobContext
from core.jobs.outputs import keeping_strips
from core.mapping.journal import StripJournal
path = Path(sys.argv[1])
try:
    with keeping_strips(path, JobContext(lambda event: None)), StripJournal(path, {}, {}):
        pass
except OutputError as error:
    print(error.message)
"""


def test_a_second_start_leaves_the_first_its_journal(tmp_path: Path) -> None:
    """Even before the first strip is finished."""
    path = tmp_path / "map.tif"
    with begun(path) as journal:
        command = [sys.executable, "-c", SECOND_START, str(path)]
        told = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
        assert "being made by another process" in told.stdout
        journal.add(FIRST, strip(1))
    with begun(path) as journal:
        assert journal.count == 1


def test_strips_outlive_a_network_that_fails_for_a_while(tmp_path: Path) -> None:
    path = tmp_path / "map.tif"
    for error, is_kept in ((ReadError("away"), True), (RasterError("nothing but nodata"), False)):
        with begun(path) as journal:
            journal.add(FIRST, strip(1))
        with pytest.raises(RasterError), keeping_strips(path, JobContext(lambda event: None)), begun(path):
            raise error
        assert has_strips(path) == is_kept
