"""Many files in one command get the right names, are refused before anything is written, or fail without stopping the
others."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from jahp_pl.cli.job_plan import STREAM, Job, JobError, is_done, plan
from jahp_pl.cli.job_queue import run_all

WANTED = {".png", ".jpg"}


@pytest.fixture
def tree(tmp_path):
    """A folder with in/a.png, in/sub/b.JPG and in/sub/notes.txt."""
    for name in ("a.png", "sub/b.JPG", "sub/notes.txt"):
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return tmp_path / "in"


def targets(*arguments, **options) -> list[Path]:
    return [job.target for job in plan(*arguments, **options)]


def test_a_folder_keeps_its_tree_of_names_below_the_output(tree, tmp_path):
    out = tmp_path / "out"
    assert targets([tree], out, ".jahp", WANTED) == [out / "a.jahp", out / "sub" / "b.jahp"]


def test_without_an_output_files_are_written_beside_their_inputs(tree):
    assert targets([tree], None, ".jahp", WANTED) == [tree / "a.jahp", tree / "sub" / "b.jahp"]
    assert targets([tree / "a.png"], None, ".jahp", WANTED) == [tree / "a.jahp"]


def test_no_output_may_be_the_input_itself(tree, tmp_path):
    (tmp_path / "other").symlink_to(tree / "a.png")
    for same in (tree / "a.png", tree / "sub" / ".." / "a.png", tmp_path / "other"):
        with pytest.raises(JobError, match="is the input itself"):
            plan([tree / "a.png"], same if same.suffix else None, ".png", WANTED, force=True)


def test_one_file_takes_the_output_as_its_name_or_its_folder(tree, tmp_path):
    assert targets([tree / "a.png"], tmp_path / "x.jahp", ".jahp", WANTED) == [tmp_path / "x.jahp"]
    assert targets([tree / "a.png"], tmp_path, ".jahp", WANTED) == [tmp_path / "a.jahp"]


def test_a_stream_goes_to_a_stream_by_default(tree):
    assert targets([STREAM], None, ".jahp", WANTED) == [STREAM]
    assert targets([STREAM], tree / "x.jahp", ".jahp", WANTED) == [tree / "x.jahp"]
    assert targets([tree / "a.png"], STREAM, ".jahp", WANTED) == [STREAM]


def test_impossible_plans_are_refused_by_name(tree, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file.d").write_bytes(b"x")
    (tmp_path / "plain").write_bytes(b"x")
    (tree / "a.jahp").write_bytes(b"x")
    (tree / "sub" / "b.png").write_bytes(b"x")
    for inputs, output, words in (
        ([tree / "none.png"], None, "none.png: no such file"),
        ([tmp_path / "empty"], None, "empty: contains no"),
        ([tree / "a.png"], None, "a.jahp: exists; it may be an original: choose another"),
        ([tree / "a.png"], tmp_path / "plain", "plain: exists; it may be an original: choose another"),
        ([tree], tmp_path / "file.d", "file.d: is one file"),
        ([tree], tmp_path / "new.jahp", "new.jahp: is one file"),
        ([tree / "a.png", tree / "sub" / "b.JPG"], tmp_path / "new.jahp", "new.jahp: is one file"),
        ([STREAM, tree / "a.png"], None, "one input"),
        ([tree], STREAM, "one input"),
        ([tree / "sub" / "b.JPG", tree / "sub" / "b.png"], tmp_path / "o", "have the same output"),
    ):
        with pytest.raises(JobError, match=words):
            plan(inputs, output, ".jahp", WANTED)
    assert targets([tree / "a.png"], None, ".jahp", WANTED, force=True) == [tree / "a.jahp"]


def test_a_file_that_is_given_twice_counts_once(tree, tmp_path):
    out = tmp_path / "o"
    assert targets([tree, tree], out, ".jahp", WANTED) == [out / "a.jahp", out / "sub" / "b.jahp"]
    assert targets([tree / "a.png", tree / "sub" / ".." / "a.png", tree], out, ".jahp", WANTED)[0] == out / "a.jahp"
    assert len(plan([tree / "a.png", tree / "a.png", tree], out, ".jahp", WANTED)) == 2
    assert all(job.obstacle is None for job in plan([tree, tree], out, ".jahp", WANTED))


def test_only_a_newer_output_of_the_same_kind_counts_as_done(tmp_path):
    job = Job(tmp_path / "a.png", tmp_path / "a.jahp", is_resumable=True)
    job.source.write_bytes(b"x")
    assert not is_done(job, lambda _: True)
    job.target.write_bytes(b"y")
    os.utime(job.source, (100, 100))
    assert is_done(job, lambda _: True)
    with pytest.raises(JobError, match="was not made by this model"):
        is_done(job, lambda _: False)
    os.utime(job.target, (50, 50))
    with pytest.raises(JobError, match="older"):
        is_done(job, lambda _: True)


def test_a_failure_is_recorded_and_the_others_continue():
    jobs = [Job(Path(name), Path("o"), is_resumable=True) for name in "abc"]
    seen = []

    def work(job: Job) -> bool:
        if job.source.name == "b":
            raise JobError("no good")
        return job.source.name == "a"

    report = run_all(jobs, work, (JobError,), seen.append)
    assert (report.num_done, report.num_skipped) == (1, 1)
    assert report.failures == [(Path("b"), "no good")]
    assert seen == jobs


def test_outputs_that_were_begun_end_in_order_while_the_next_ones_begin():
    jobs = [Job(Path(name), Path("o"), is_resumable=True) for name in "abcde"]
    events = []

    def work(job: Job):
        name = job.source.name
        if name == "d":
            raise JobError("no good")
        events.append(f"begin {name}")
        return lambda: finish(name)

    def finish(name: str) -> bool:
        events.append(f"end {name}")
        if name == "e":
            raise JobError("disk full")
        return name != "c"

    report = run_all(jobs, work, (JobError,))
    assert events == [f"{part} {name}" for part, name in zip(
        ["begin", "begin", "begin", "end", "begin", "end", "end", "end"], "abcaebce", strict=True
    )]  # fmt: skip
    assert (report.num_done, report.num_skipped) == (2, 1)
    assert report.failures == [(Path("d"), "no good"), (Path("e"), "disk full")]


def test_a_bug_does_not_count_as_a_failed_input():
    def work(_: Job) -> bool:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_all([Job(Path("a"), Path("o"), is_resumable=True)], work, (JobError,))
