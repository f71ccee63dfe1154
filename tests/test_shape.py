"""The model of shapes: its parts against cases that can be done by hand, the choice, the simulation behind docs/shape.md."""

from __future__ import annotations

import math
import random
import time
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsqdo.demand import TaskTime
from fsqdo.errors import InputError
from fsqdo.shape import INDIFFERENT, choose, parse_test_only
from fsqdo.shapemodel import (
    Permitted,
    Shape,
    estimate_shape,
    filled_s,
    prior_wait_s,
    representatives,
    slots_per_node,
)
from tests import shape_simulation
from tests.terminal import CHECKOUT

SITE = Permitted(cores_per_node=16, max_nodes=8, max_walltime_s=86400, max_jobs=16)


def known(*seconds: float) -> tuple[TaskTime, ...]:
    return tuple(TaskTime(s, requested=True) for s in seconds)


def unknown(*seconds: float) -> tuple[TaskTime, ...]:
    return tuple(TaskTime(s) for s in seconds)


# ---------------------------------------------------------------- its parts
def test_permitted_shapes_are_powers_of_two_and_the_most() -> None:
    permitted = Permitted(8, max_nodes=6, max_walltime_s=5400)
    assert permitted.node_counts() == [1, 2, 4, 6]
    assert permitted.walltimes() == [300, 600, 900, 1800, 3600, 5400]
    assert replace(permitted, nodes=(3, 9)).node_counts() == [3]
    assert replace(permitted, walltimes_s=(600, 9000)).walltimes() == [600]
    assert Permitted(8).walltimes() == [None]


@pytest.mark.parametrize(
    ("tasks", "permitted", "slots"),
    [
        (known(1.0), SITE, 16),
        ([TaskTime(1.0, cores=4)], SITE, 4),
        ([TaskTime(1.0, cores=1), TaskTime(1.0, cores=3)], SITE, 8),
        ([TaskTime(1.0, cores=99)], SITE, 1),
        ([TaskTime(1.0, mem_mb=3000)], replace(SITE, mem_per_node_mb=16000), 5),
        (known(1.0), replace(SITE, max_slots=3), 3),
    ],
)
def test_slots_of_a_node(tasks: list[TaskTime], permitted: Permitted, slots: int) -> None:
    assert slots_per_node(tasks, permitted) == slots


def test_constant_tasks_fill_a_slot_as_often_as_they_go_into_it() -> None:
    assert filled_s(known(700), 1780) == pytest.approx(1400, rel=0.03)
    assert filled_s(unknown(700), 1780) == pytest.approx(1400, rel=0.03)  # the third one is begun, and lost
    assert filled_s(known(400), 400) == pytest.approx(400)


def test_short_tasks_fill_the_gaps_that_long_ones_leave_until_they_are_used_up() -> None:
    assert filled_s(known(600, 100, 100, 100), 900) == pytest.approx(900, rel=0.1)
    assert filled_s(known(600, 600, 600, 100), 900) < 650


def test_what_is_not_known_beforehand_is_lost_at_the_deadline() -> None:
    times = [60.0] * 9 + [3000.0]
    assert filled_s(unknown(*times), 3580) < 0.95 * filled_s(known(*times), 3580)


def test_the_longest_first_packs_best() -> None:
    chance = random.Random(3)
    tasks = known(*(chance.uniform(100, 1700) for _ in range(200)))
    in_order, packed = filled_s(tasks, 1780), filled_s(tasks, 1780, True)
    assert in_order < packed <= 1780


@given(st.lists(st.floats(1, 900), min_size=1, max_size=30), st.booleans())
def test_a_slot_is_never_filled_beyond_its_time(seconds: list[float], requested: bool) -> None:
    tasks = tuple(TaskTime(s, requested) for s in seconds)
    for usable_s in (900.0, 5000.0, 1e7):
        assert 0 < filled_s(tasks, usable_s) <= usable_s * (1 + 1e-9)


def test_representatives_keep_the_mean_and_the_longest() -> None:
    chance = random.Random(5)
    tasks = known(*(chance.lognormvariate(5, 1) for _ in range(1000)))
    few = representatives(tasks)
    assert len(few) == 200 and few[-1].seconds == max(t.seconds for t in tasks)
    assert sum(t.seconds for t in few) / 200 == pytest.approx(sum(t.seconds for t in tasks) / 1000, rel=0.05)


def test_an_estimate_that_can_be_done_by_hand() -> None:
    # 160 tasks of 600 s on 16 slots: ten each, 6000 s and 10 s for the start.
    found = estimate_shape(known(600), 160, Shape(1, 7200, 1), SITE, lambda nodes, walltime_s, jobs: 100.0)
    assert found is not None
    assert (found.fits, found.rounds, found.slots_per_node, found.wait_s) == (1.0, 1, 16, 100.0)
    assert found.useful_s == pytest.approx(6000)
    assert found.finish_s == pytest.approx(100 + 10 + 6000, rel=0.06)
    assert 0.93 < found.efficiency <= 1


def test_what_does_not_fit_into_one_job_takes_rounds() -> None:
    # 160 tasks of 600 s, two a slot in half an hour: 32 a round, five rounds.
    found = estimate_shape(known(600), 160, Shape(1, 1800, 1), SITE, lambda *_: 100.0)
    assert found is not None and found.rounds == 5
    assert found.waste_s == pytest.approx(1780 - 1200, rel=0.05)
    assert found.finish_s == pytest.approx(4 * (100 + 1800) + 100 + 10 + 1200, rel=0.06)


def test_nothing_that_fits_is_no_estimate() -> None:
    assert estimate_shape(known(600), 10, Shape(1, 300, 1), SITE) is None


@given(
    st.lists(st.floats(0.01, 1e5), min_size=1, max_size=20),
    st.integers(1, 10**6),
    st.integers(1, 8),
    st.sampled_from([300, 3600, 86400, None]),
    st.integers(1, 16),
    st.booleans(),
)
def test_estimates_make_sense(
    seconds: list[float], count: int, nodes: int, walltime_s: int | None, jobs: int, requested: bool
) -> None:
    tasks = [TaskTime(s, requested) for s in seconds]
    found = estimate_shape(tasks, count, Shape(nodes, walltime_s, jobs), SITE)
    if found is None:
        assert walltime_s is not None and min(seconds) > walltime_s - 20
        return
    assert 0 < found.efficiency <= 1 and 0 < found.fits <= 1 and found.rounds >= 1
    assert math.isfinite(found.finish_s) and found.finish_s > 0
    assert str(found)


# ---------------------------------------------------------------- the choice
def test_long_tasks_get_a_walltime_they_fit_into() -> None:
    best = choose(known(*[60] * 50, 20000), 500, SITE).best
    assert best.fits == 1 and (best.shape.walltime_s or 0) >= 20020


def test_without_a_deadline_it_is_as_efficient_as_the_best_and_done_earlier() -> None:
    choice = choose(known(*range(30, 1000, 10)), 5000, SITE)
    top = max(e.efficiency for e in choice.compared if e.fits == 1)
    assert choice.best.efficiency >= top - INDIFFERENT
    assert all(e.finish_s >= choice.best.finish_s for e in choice.compared if e.fits == 1 and e.efficiency >= top - INDIFFERENT)


def test_with_a_deadline_the_most_efficient_that_keeps_it() -> None:
    tasks = known(*range(30, 1000, 10))
    relaxed = choose(tasks, 5000, replace(SITE, finish_by_s=2 * 86400)).best
    hurried = choose(tasks, 5000, replace(SITE, finish_by_s=3600)).best
    assert hurried.finish_s <= 3600 < relaxed.finish_s
    assert relaxed.efficiency >= hurried.efficiency
    never = choose(tasks, 5000, replace(SITE, finish_by_s=1))
    assert "none is done" in never.why and never.best.finish_s == min(e.finish_s for e in never.compared if e.fits == 1)


def test_the_area_is_kept() -> None:
    tasks = known(600)
    for hours in (1.0, 4.0, 100.0):
        choice = choose(tasks, 5000, replace(SITE, area_s=hours * 3600))
        nodes, walltime_s, jobs = choice.best.shape
        assert nodes * (walltime_s or 0) * jobs <= hours * 3600
    assert "though it needs more than 1 node hours" in choose(tasks, 5000, replace(SITE, area_s=3600)).why


def test_limits_are_kept() -> None:
    tasks = known(600)
    for permitted in (replace(SITE, max_jobs=3), replace(SITE, nodes=(2,)), replace(SITE, walltimes_s=(1800,))):
        for estimate in choose(tasks, 100_000, permitted).compared:
            nodes, walltime_s, jobs = estimate.shape
            assert jobs <= permitted.max_jobs and nodes in permitted.node_counts() and walltime_s in permitted.walltimes()
    few = choose(tasks, 100_000, replace(SITE, max_slots=40)).compared
    assert few and all(e.shape.nodes * e.shape.jobs * e.slots_per_node <= 40 for e in few)


def test_few_tasks_get_no_more_slots_than_they_are() -> None:
    best = choose(known(600), 3, SITE).best
    assert best.shape.jobs == 1 and best.shape.nodes == 1


def test_jobs_without_a_walltime() -> None:
    best = choose(known(30, 60), 10, Permitted(4)).best
    assert best.shape == Shape(1, None, 1) and best.rounds == 1 and best.wait_s == 0
    assert "no limit" in str(best)


def test_what_nothing_can_run_is_refused_with_the_arithmetic() -> None:
    with pytest.raises(InputError) as caught:
        choose(known(90000), 5, replace(SITE, max_walltime_s=3600))
    assert "25:00:00" in str(caught.value) and "1:00:00" in str(caught.value) and "max_walltime" in str(caught.value)
    with pytest.raises(InputError):
        choose((), 0, SITE)


def test_a_forecast_changes_the_choice_and_is_asked_for_a_few_shapes_only() -> None:
    tasks, asked = known(*range(30, 1000, 10)), []
    before = choose(tasks, 5000, SITE).best

    def slow_for_that_one(nodes: int, walltime_s: int) -> float:
        asked.append((nodes, walltime_s))
        return 50000.0 if (nodes, walltime_s) == before.shape[:2] else 10.0

    choice = choose(tasks, 5000, SITE, slow_for_that_one)
    assert choice.best.shape[:2] != before.shape[:2] and "forecasts" in choice.why
    assert before.shape[:2] in asked and len(asked) == len(set(asked)) <= 6
    assert choose(tasks, 5000, SITE, lambda nodes, walltime_s: None).best == before


def test_the_words_name_the_numbers() -> None:
    lines = choose(known(*[600] * 60, *[6000] * 20), 5000, SITE).lines()
    assert lines[0].startswith("shape: ") and "node hours useful" in lines[0] and "waiting for the start" in lines[0]
    assert "compared" in lines[1] and lines[2].startswith("not ")


def test_the_prior_waits_longer_for_more() -> None:
    assert prior_wait_s(1, 3600, 1) < prior_wait_s(2, 3600, 1) < prior_wait_s(2, 7200, 1) < prior_wait_s(2, 7200, 5)
    assert prior_wait_s(4, None, 1) == 0


# ---------------------------------------------------------------- sbatch --test-only
def test_the_forecast_of_slurm_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    try:
        said = "sbatch: Job 5 to start at 2026-01-01T10:00:00 using 1 processors on nodes n1 in partition debug\n"
        at = 1767258000.0  # 10 o'clock in Berlin
        assert parse_test_only(said, at - 90) == 90
        assert parse_test_only(said, at + 90) == 0
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "allocation failure: Requested node configuration is not available",
        "sbatch: Job 5 to start at Unknown using 1",
        "sbatch: Job 5 to start at 2026-13-41T10:00:00 using 1",
        "Job 5 to start at 9999-99-99T99:99:99",
    ],
)
def test_what_is_no_forecast_is_none(text: str) -> None:
    assert parse_test_only(text, 0) is None


# ---------------------------------------------------------------- the simulation
def test_the_simulated_batch_system_keeps_count() -> None:
    tasks = [shape_simulation.Task(600.0, True)] * 100
    left, ends, useful = shape_simulation.work(tasks, Shape(1, 1800, 2), [0.0, 100.0])
    assert len(left) == 100 - 64 and useful == 64 * 600 and ends == [1210, 1310]
    left, ends, useful = shape_simulation.work([shape_simulation.Task(600.0, False)] * 100, Shape(1, 1800, 1), [0.0])
    assert len(left) == 100 - 32 and useful == 32 * 600 and ends == [1790]


def test_the_choice_leaves_nothing_and_no_fixed_shape_that_does_so_is_better_in_both() -> None:
    for name, tasks in shape_simulation.workloads(1000).items():
        quiet, policies = shape_simulation.quiet, shape_simulation.POLICIES
        results = {words: shape_simulation.run(tasks, policy, quiet) for words, policy in policies.items()}
        mine = results.pop("chosen")
        assert mine.left == 0, name
        for words, other in results.items():
            if not other.left:
                # None of them is better in both.
                assert mine.finish_h <= other.finish_h or mine.charged_h <= other.charged_h, (name, words)


def test_the_page_shows_what_the_command_prints() -> None:
    page = (CHECKOUT / "docs" / "shape.md").read_text("utf-8")
    assert "\n".join(shape_simulation.table()) in page
