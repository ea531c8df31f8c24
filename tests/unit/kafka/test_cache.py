"""The state cache: what it keeps, against a plain dictionary, and what it never trusts."""

from __future__ import annotations

import logging
import threading
from pathlib import Path

import apsw
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from postline.log.kafka.cache import CacheBroken, CacheKey, Change, StateCache

KEY = CacheKey("topic-1", "cluster-1")
SAVED = [("held", b"a", b"1"), ("held", b"b", b"2"), ("dedup", b"a", b"3")]

namespaces = st.sampled_from(["held", "dead", "ä"])
keys = st.binary(max_size=2)
puts = st.tuples(namespaces, keys, st.none() | st.binary(max_size=3))
clears = st.tuples(namespaces, st.none(), st.none())


def saved(path: Path) -> Path:
    """A closed cache with a few entries, applied up to 7."""
    cache = StateCache.open(path, KEY)
    cache.apply(SAVED, 7, 1_000)
    cache.close()
    return path


def applied_of(path: Path, key: CacheKey = KEY) -> tuple[int, int, int]:
    """How far a cache is when it is opened again, when it was saved, and how many entries it has."""
    cache = StateCache.open(path, key)
    found = (cache.applied, cache.saved_ms, len(cache.scan("held", b"", 10)) + len(cache.scan("dedup", b"", 10)))
    cache.close()
    return found


def changed(model: dict[tuple[str, bytes], bytes], changes: list[Change]) -> None:
    """Make the changes in a plain dictionary."""
    for namespace, key, value in changes:
        if key is None:
            for place in [place for place in model if place[0] == namespace]:
                del model[place]
        elif value is None:
            model.pop((namespace, key), None)
        else:
            model[namespace, key] = value


@settings(deadline=None, max_examples=60)
@given(st.lists(st.lists(puts | clears, max_size=130), max_size=4), st.integers(1, 5), keys)
def test_it_keeps_what_a_dictionary_would(batches: list[list[Change]], limit: int, after: bytes) -> None:
    cache, model = StateCache.open(None, KEY), dict[tuple[str, bytes], bytes]()
    try:
        for number, changes in enumerate(batches, 1):
            cache.apply(changes, number, number * 10)
            changed(model, changes)
            assert (cache.applied, cache.saved_ms) == (number, number * 10)
            for name in ("held", "dead", "ä"):
                entries = sorted((key, value) for (space, key), value in model.items() if space == name)
                above = [entry for entry in entries if entry[0] > after]
                assert cache.scan(name, after, limit) == above[:limit]
                wanted = [key for key, _ in entries] + [b"absent"]
                assert cache.get(name, wanted) == dict(entries)
    finally:
        cache.close()


def test_many_keys_are_got_at_once() -> None:
    cache = StateCache.open(None, KEY)
    entries = {number.to_bytes(8, "big"): b"%d" % number for number in range(1_234)}
    cache.apply([("held", key, value) for key, value in entries.items()], 1, 1)
    assert cache.get("held", list(entries)) == entries
    assert cache.scan("held", b"", 5_000) == list(entries.items())
    cache.close()


def test_a_file_goes_on_where_it_was(tmp_path: Path) -> None:
    path = saved(tmp_path / "deeper" / "state.db")
    assert applied_of(path) == (7, 1_000, 3)
    cache = StateCache.open(path, KEY)
    assert cache.get("held", [b"a", b"b", b"c"]) == {b"a": b"1", b"b": b"2"}
    cache.close()


def test_what_was_applied_is_there_after_a_death_without_a_close(tmp_path: Path) -> None:
    cache = StateCache.open(tmp_path / "state.db", KEY)
    cache.apply(SAVED, 7, 1_000)
    for file in tmp_path.iterdir():
        (tmp_path / f"dead-{file.name}").write_bytes(file.read_bytes())
    cache.close()
    (tmp_path / "dead-state.db-shm").unlink()
    assert applied_of(tmp_path / "dead-state.db") == (7, 1_000, 3)


def test_clear_begins_anew(tmp_path: Path) -> None:
    cache = StateCache.open(saved(tmp_path / "state.db"), KEY)
    cache.clear()
    assert (cache.applied, cache.saved_ms, cache.scan("held", b"", 9)) == (0, 0, [])
    cache.close()
    assert applied_of(tmp_path / "state.db") == (0, 0, 0)


@pytest.mark.parametrize("other", [CacheKey("topic-2", "cluster-1"), CacheKey("topic-1", "cluster-2")])
def test_a_cache_of_another_changelog_is_begun_anew(
    tmp_path: Path, other: CacheKey, caplog: pytest.LogCaptureFixture
) -> None:
    path = saved(tmp_path / "state.db")
    with caplog.at_level(logging.INFO):
        assert applied_of(path, other) == (0, 0, 0)
    assert "of another changelog" in caplog.text
    assert applied_of(path, other) == (0, 0, 0)


@pytest.mark.parametrize("content", [b"", b"no database " * 500, b"SQLite format 3\0" + b"\xff" * 8_000])
def test_a_file_of_other_bytes_is_begun_anew(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "state.db"
    path.write_bytes(content)
    assert applied_of(path) == (0, 0, 0)
    saved(path)
    assert applied_of(path) == (7, 1_000, 3)


@pytest.mark.parametrize("length", [50, 512, 4_096, 6_000])
def test_a_truncated_file_is_begun_anew(tmp_path: Path, length: int) -> None:
    path = saved(tmp_path / "state.db")
    assert path.stat().st_size > length
    path.write_bytes(path.read_bytes()[:length])
    assert applied_of(path) == (0, 0, 0)


def test_a_page_of_rubbish_is_noticed(tmp_path: Path) -> None:
    path = saved(tmp_path / "state.db")
    content = bytearray(path.read_bytes())
    content[-4_096:] = b"\xa5" * 4_096
    path.write_bytes(content)
    assert applied_of(path) == (0, 0, 0)


@pytest.mark.parametrize("statement", ["PRAGMA user_version = 99", "PRAGMA application_id = 1", "DROP TABLE meta"])
def test_a_file_of_another_format_is_begun_anew(tmp_path: Path, statement: str) -> None:
    path = saved(tmp_path / "state.db")
    connection = apsw.Connection(str(path))
    connection.execute(statement)
    connection.close()
    assert applied_of(path) == (0, 0, 0)


def test_damage_that_shows_later_is_told(tmp_path: Path) -> None:
    cache = StateCache.open(tmp_path / "state.db", KEY)
    connection = apsw.Connection(str(tmp_path / "state.db"))
    connection.execute("DROP TABLE entries")
    connection.close()
    with pytest.raises(CacheBroken, match=r"state\.db"):
        cache.get("held", [b"a"])
    with pytest.raises(CacheBroken):
        cache.scan("held", b"", 1)
    with pytest.raises(CacheBroken):
        cache.apply(SAVED, 8, 2_000)
    assert (cache.applied, cache.saved_ms) == (0, 0)
    with pytest.raises(CacheBroken):
        cache.clear()
    cache.close()


def test_a_full_disk_is_told_apart(tmp_path: Path) -> None:
    cache = StateCache.open(tmp_path / "state.db", KEY)
    cache._writer.pragma("max_page_count", 8)
    with pytest.raises(CacheBroken) as told:
        cache.apply([("held", b"a", b"x" * 100_000), ("held", b"b", b"1")], 5, 1)
    assert told.value.full
    assert (cache.applied, cache.scan("held", b"", 9)) == (0, [])
    cache.close()


def test_where_no_file_can_be_made_it_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CacheBroken):
        StateCache.open(tmp_path / "file" / "state.db", KEY)
    (tmp_path / "directory").mkdir()
    with pytest.raises(CacheBroken):
        StateCache.open(tmp_path / "directory", KEY)


def test_a_private_file_goes_with_its_object() -> None:
    cache = StateCache.open(None, KEY)
    other = StateCache.open(None, KEY)
    assert cache.path != other.path
    assert cache.path.exists()
    cache.close()
    cache.close()
    assert not cache.path.parent.exists()
    left = other.path.parent
    del other
    assert not left.exists()


def test_a_closed_cache_is_told_from_an_empty_one(tmp_path: Path) -> None:
    cache = StateCache.open(tmp_path / "state.db", KEY)
    cache.close()
    with pytest.raises(CacheBroken, match="closed"):
        cache.get("held", [b"a"])
    with pytest.raises(CacheBroken, match="closed"):
        cache.apply(SAVED, 1, 1)


def test_one_thread_reads_whole_batches_while_another_writes() -> None:
    cache, torn, done = StateCache.open(None, KEY), list[object](), threading.Event()
    names = [number.to_bytes(2, "big") for number in range(150)]

    def read() -> None:
        while not done.is_set():
            values = {value for _, value in cache.scan("held", b"", 1_000)}
            if len(values) > 1:
                torn.append(values)

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(100):
        cache.apply([("held", name, b"%d" % number) for name in names], number, number)
    done.set()
    reader.join()
    cache.close()
    assert torn == []
