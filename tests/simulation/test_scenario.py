"""The whole runtime under seeded faults: sound for thousands of seeds, and every mutant is found."""

from __future__ import annotations

import os

import pytest

from tests.simulation.simulate import ALL_MUTANTS, run_seed, run_seeds, scenario_of


@pytest.mark.parametrize("seed", range(6))
def test_a_seed_of_the_runtime_repeats_exactly(seed: int) -> None:
    first, second = run_seed(seed, keep_trace=True), run_seed(seed, keep_trace=True)
    assert first.trace == second.trace
    assert first.digest == second.digest


def test_every_scenario_is_among_a_few_seeds() -> None:
    assert {scenario_of(seed) for seed in range(60)} == {"shop", "resetting", "aging", "upgrading", "delaying"}


def test_the_runtime_is_sound_under_a_few_seeds() -> None:
    assert [str(result) for result in run_seeds(0, 60, jobs=1) if result.problems] == []


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_runtime_is_sound_under_thousands_of_seeds() -> None:
    results = run_seeds(0, 2_000, jobs=os.cpu_count() or 1)
    assert [str(result) for result in results if result.problems] == []


@pytest.mark.parametrize("mutant", ALL_MUTANTS)
def test_each_mutant_is_found_within_its_seeds(mutant: str) -> None:
    assert any(result.problems for result in run_seeds(0, 300, jobs=1, mutant=mutant))
