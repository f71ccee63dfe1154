"""The shape of a launch: how many jobs, nodes, workers and slots, and what does not fit."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsqdo.config import Profile
from fsqdo.errors import InputError
from fsqdo.plan import Plan, Request, Shape, plan

NODE = Profile("node", "slurm", cores_per_node=32, gpus_per_node=4, mem_per_node_mb=64_000)
BARE = Profile("bare", "slurm")
LIMITED = Profile("small", "slurm", cores_per_node=8, max_nodes=4, max_jobs=10, max_walltime_s=3600)


def _plan(profile: Profile = NODE, **request: Any) -> Plan:
    return plan(Request(**request), profile)


def _shape(profile: Profile = NODE, **request: Any) -> Shape:
    (shape,) = _plan(profile, **request).shapes
    return shape


# ---------------------------------------------------------------- shapes
def test_plain_is_a_job_for_each_worker() -> None:
    assert _shape(n=24) == Shape(count=24, slots=1)
    assert _plan(n=9, slots=4).shapes == (Shape(2, 4, cores=4), Shape(1, 1))
    assert _plan(n=3, slots=4).shapes == (Shape(1, 3, cores=3),)
    assert _shape(n=2, gpus=1, mem_mb=4000, cores=8) == Shape(2, 1, cores=8, gpus=1, mem_mb=4000)


def test_a_packed_job_has_one_worker_a_node_with_as_many_slots_as_it_has_cores() -> None:
    assert _shape(n=256, packed=True) == Shape(1, 32, nodes=8, cores=32)
    assert _shape(n=256, packed=True, cores=8) == Shape(1, 4, nodes=64, cores=32)
    assert _shape(n=256, packed=True, jobs=2) == Shape(2, 32, nodes=8, cores=32)
    assert _shape(n=24, packed=True) == Shape(1, 24, cores=24)


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        ({"gpus": 1}, Shape(1, 4, nodes=2, cores=4, gpus=4)),
        ({"gpus": 2, "cores": 16}, Shape(1, 2, nodes=4, cores=32, gpus=4)),
        ({"mem_mb": 16_000}, Shape(1, 4, nodes=2, cores=4, mem_mb=64_000)),
        ({"mem_mb": 33_000}, Shape(1, 1, nodes=8, cores=1, mem_mb=33_000)),
    ],
)
def test_the_scarcest_of_a_node_decides(request_: dict[str, Any], expected: Shape) -> None:
    assert _shape(n=8, packed=True, **request_) == expected


def test_what_does_not_divide_is_spread_evenly_and_rounded_up() -> None:
    made = _plan(n=100, packed=True)
    assert made.shapes == (Shape(1, 25, nodes=4, cores=25),)
    assert made.at_once == 100
    assert _plan(n=33, packed=True).at_once == 34


def test_full_nodes() -> None:
    assert _shape(nodes=4, packed=True) == Shape(1, 32, nodes=4, cores=32)
    assert _shape(nodes=4, packed=True, cores=8) == Shape(1, 4, nodes=4, cores=32)
    assert _shape(n=12, nodes=4, packed=True) == Shape(1, 3, nodes=4, cores=32), "the worker gets all of its node"
    assert _shape(BARE, n=12, nodes=4, packed=True) == Shape(1, 3, nodes=4, cores=3)


def test_workers_per_node() -> None:
    assert _shape(n=64, packed=True, workers_per_node=16) == Shape(1, 16, nodes=4, cores=16)
    assert _shape(n=64, packed=True, workers_per_node=2, slots=8) == Shape(1, 8, nodes=4, workers_per_node=2, cores=8)
    assert _shape(n=64, packed=True, slots=8) == Shape(1, 8, nodes=2, workers_per_node=4, cores=8)
    assert _shape(BARE, n=64, packed=True, slots=8) == Shape(1, 8, workers_per_node=8, cores=8)


def test_where_a_node_is_not_known_a_packed_job_has_one() -> None:
    assert _shape(BARE, n=64, packed=True) == Shape(1, 64, cores=64)


def test_a_system_without_nodes_has_one_worker_a_job() -> None:
    assert _shape(n=64, packed=True, slots=8, one_node=True, says_cores=False) == Shape(1, 64)
    with pytest.raises(InputError, match="64 slots with 1 cores each are 64 on a node, but there are 32"):
        _plan(n=64, packed=True, one_node=True)


def test_nodes_for_each_worker() -> None:
    assert _shape(BARE, n=3, nodes_per_worker=2) == Shape(3, 1, nodes=2, nodes_per_worker=2)
    assert _shape(n=3, nodes_per_worker=2) == Shape(3, 1, nodes=2, nodes_per_worker=2, cores=32), "all of its nodes"
    assert _shape(n=2, packed=True, nodes_per_worker=4, cores=16) == Shape(1, 2, nodes=4, nodes_per_worker=4, cores=32)
    with pytest.raises(InputError, match="neither --nodes nor --workers-per-node"):
        _plan(n=4, packed=True, nodes_per_worker=2, nodes=2)
    with pytest.raises(InputError, match="5 slots with 16 cores each are 80 on a node, but there are 32"):
        _plan(n=5, packed=True, nodes_per_worker=2, cores=16)


def test_arrays() -> None:
    assert _plan(n=3, array=True).array
    assert not _plan(n=1, array=True).array
    assert _plan(n=9, slots=4, array=True).shapes == (Shape(2, 4, cores=4), Shape(1, 1))


# ---------------------------------------------------------------- words
@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (
            {"n": 128, "packed": True, "jobs": 2, "walltime_s": 3600},
            "2 jobs of 4 nodes, 1 worker a node of 32 slots, 1 core a slot: 256 tasks at once, 1:00:00",
        ),
        ({"n": 1}, "1 job with one worker of 1 slot: 1 task at a time"),
        ({"n": 9, "slots": 4},
         "2 jobs with one worker of 4 slots, 1 core a slot and 1 job with one worker of 1 slot: 9 tasks at once"),
        ({"n": 8, "packed": True, "gpus": 1, "cores": 2, "mem_mb": 1000},
         "1 job of 2 nodes, 1 worker a node of 4 slots, 2 cores a slot, 1 GPU a slot, 1000 MiB a slot: 8 tasks at once"),
        ({"n": 64, "packed": True, "slots": 8},
         "1 job of 2 nodes, 4 workers a node of 8 slots, 1 core a slot: 64 tasks at once"),
        ({"n": 3, "array": True}, "3 jobs (an array) with one worker of 1 slot: 3 tasks at once"),
        ({"n": 2, "nodes_per_worker": 4}, "2 jobs of 4 nodes, one worker of 1 slot, 32 cores a slot and node: 2 tasks at once"),
        ({"n": 12, "nodes": 4, "packed": True},
         "1 job of 4 nodes, 1 worker a node of 3 slots, 10.7 cores a slot: 12 tasks at once"),
    ],
)  # fmt: skip
def test_the_plan_in_words(request_: dict[str, Any], expected: str) -> None:
    assert str(_plan(**request_)) == expected


# ---------------------------------------------------------------- what does not fit
@pytest.mark.parametrize(
    ("profile", "request_", "message"),
    [
        (NODE, {"n": 4, "packed": True, "cores": 64},
         "not one task fits on a node: a node of the profile 'node' has 32 cores, 64 for each"),
        (NODE, {"n": 4, "packed": True, "gpus": 5}, "4 GPUs, 5 for each task"),
        (NODE, {"n": 4, "packed": True, "mem_mb": 65_000}, "64000 MiB of memory, 65000 for each task"),
        (NODE, {"n": 1, "gpus": 5}, "1 worker of 1 slot with 5 GPUs each are 5 on a node, but there are 4 (gpus_per_node)"),
        (NODE, {"n": 80, "slots": 40},
         "1 worker of 40 slots with 1 cores each are 40 on a node, but there are 32 (cores_per_node)"),
        (NODE, {"n": 100, "packed": True, "nodes": 2},
         "2 nodes of 32 tasks at once hold 64, not 100: a node of the profile 'node' has 32 cores, 1 for each task"),
        (NODE, {"n": 100, "packed": True, "nodes": 2, "workers_per_node": 8},
         "2 nodes of 8 tasks at once hold 16, not 100: --workers-per-node is 8"),
        (NODE, {"n": 80, "packed": True, "workers_per_node": 5, "slots": 8},
         "5 workers of 8 slots with 1 cores each are 40 on a node, but there are 32 (cores_per_node)"),
        (LIMITED, {"n": 40, "packed": True}, "a job would have 5 nodes, but may have 4 (max_nodes)"),
        (LIMITED, {"n": 11}, "there would be 11 jobs, but there may be 10 (max_jobs)"),
        (LIMITED, {"n": 11, "array": True}, "there would be 11 jobs"),
        (LIMITED, {"n": 1, "walltime_s": 3601}, "the walltime would be 1:00:01, but may be 1:00:00 (max_walltime)"),
        (BARE, {"nodes": 2, "packed": True}, "how many tasks at once 2 full nodes can run is not known"),
        (BARE, {"packed": True}, "how many tasks are to run at once is not said"),
        (BARE, {"n": 10_001}, "10001 jobs in one launch are more than 10000"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_with_the_arithmetic(profile: Profile, request_: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        _plan(profile, **request_)
    assert message in str(caught.value)


def test_all_that_does_not_fit_is_told_at_once() -> None:
    with pytest.raises(InputError) as caught:
        _plan(LIMITED, n=40, packed=True, jobs=11, walltime_s=7200)
    for key in ("max_nodes", "max_jobs", "max_walltime"):
        assert key in str(caught.value)


def test_limits_that_are_just_kept() -> None:
    made = _plan(LIMITED, n=32, packed=True, jobs=10, walltime_s=3600)
    assert (made.jobs, made.at_once) == (10, 320)


_small = st.none() | st.integers(1, 40)


@given(
    n=st.integers(1, 300), slots=_small, cores=_small, nodes=_small, each=_small, packed=st.booleans(), jobs=st.integers(1, 3)
)
def test_a_plan_runs_what_was_asked_for_and_keeps_the_limits_or_is_refused(
    n: int, slots: int | None, cores: int | None, nodes: int | None, each: int | None, packed: bool, jobs: int
) -> None:
    request = Request(
        n, packed, jobs, slots, nodes=nodes if packed else None, workers_per_node=each if packed else None, cores=cores
    )
    try:
        made = plan(request, NODE)
    except InputError:
        return
    wanted = n * jobs if packed else n
    slack = sum(shape.count * shape.workers for shape in made.shapes) * (slots or 1)
    assert wanted <= made.at_once <= wanted + slack
    for shape in made.shapes:
        assert (shape.cores or 0) * shape.workers_per_node <= 32
