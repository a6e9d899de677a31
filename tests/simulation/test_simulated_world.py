"""The pure core in a seeded world of faults: safety after any step, convergence once healed."""

from __future__ import annotations

import os

import hypothesis
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from aggregators.dedupe import KeyFilter
from tests.support.sim_world import World

SEEDS = int(os.environ.get("SIMULATE_SEEDS", "1000"))
FIRST_SEED = int(os.environ.get("SIMULATE_SEED", "0"))
PARTS = 4
STEPS = 70
EXAMPLES = int(os.environ.get("SIMULATE_EXAMPLES", "30"))


@pytest.fixture(autouse=True)
def small_filters(monkeypatch: pytest.MonkeyPatch) -> None:
    """A filter that grows after a few identities is quicker to make, and its growth is tested along."""
    monkeypatch.setattr(KeyFilter.__init__, "__defaults__", (32,))


@pytest.mark.parametrize("part", range(PARTS))
def test_seeded_worlds_are_safe_and_converge(part: int) -> None:
    """L1. In seeded worlds every row is at any time the count of its prefix of the log, and in the end of all of it."""
    for seed in range(FIRST_SEED + part, FIRST_SEED + SEEDS, PARTS):
        world = World(seed)
        try:
            for number in range(STEPS):
                world.step()
                if number % 10 == 9:
                    world.check_safety()
            world.heal()
            world.check_converged()
        except Exception as error:
            error.add_note(f"steps: {' '.join(world.history)}")
            error.add_note(f"replay: SIMULATE_SEED={seed} SIMULATE_SEEDS=1 pytest tests/simulation")
            raise


class AnyWorld(RuleBasedStateMachine):
    """The same world, steered by hypothesis, which shortens what fails."""

    @initialize(seed=st.integers(0, 1_000))
    def begin(self, seed: int) -> None:
        self.world = World(seed)
        self.world.start()

    @rule(count=st.integers(1, 5))
    def send(self, count: int) -> None:
        for _ in range(count):
            self.world.send()

    @rule()
    def send_again(self) -> None:
        self.world.send_again()

    @rule()
    def send_poison(self) -> None:
        self.world.send_poison()

    @rule()
    def fetch(self) -> None:
        self.world.fetch()

    @rule()
    def flush(self) -> None:
        self.world.flush()

    @rule(count=st.integers(1, 6))
    def write(self, count: int) -> None:
        for _ in range(count):
            self.world.write()

    @rule()
    def start(self) -> None:
        self.world.start()

    @rule()
    def rebalance(self) -> None:
        self.world.rebalance()

    @precondition(lambda self: self.world.workers)
    @rule()
    def crash(self) -> None:
        self.world.crash()

    @rule()
    def edit_catalog_and_wait(self) -> None:
        self.world.edit_catalog()
        self.world.wait()

    @rule()
    def check(self) -> None:
        self.world.check_safety()

    def teardown(self) -> None:
        if hasattr(self, "world"):
            self.world.heal()
            self.world.check_converged()


def test_no_order_of_steps_breaks_the_world() -> None:
    """L0. Hypothesis finds no order of sends, repeats, flushes, crashes and take-overs that loses or doubles."""
    run_state_machine_as_test(
        AnyWorld,
        settings=hypothesis.settings(
            max_examples=EXAMPLES,
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=list(hypothesis.HealthCheck),
        ),
    )
