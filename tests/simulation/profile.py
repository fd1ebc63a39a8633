"""What one seed is about: who takes part, and which faults come how often.

Each seed draws its own mixture, with most kinds of faults left out: faults hide each other, and a seed with all
of them shows less than several with few (A. Groce and others, "Swarm Testing", ISSTA 2012).
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random


@dataclass(frozen=True, slots=True)
class Profile:
    """Rates are chances of one call or statement, or mean seconds between two events (0 for never)."""

    workers: int
    submitters: int
    active_s: float
    """For how long there are submissions and faults; then everything has to come to rest."""
    operations: int
    """Submissions of each submitter."""
    lease_s: float
    disorder: float
    threads: int
    on_loop: int
    # A call of the store's port: refused, or done with its reply lost, or late.
    refused: float
    reply_lost: float
    late: float
    # A statement of SQLite's: refused; a commit that is refused, or done and reported as failed.
    statement_fails: float
    commit_fails: float
    commit_ambiguous: float
    # Pokes that are lost, and that are late.
    poke_lost: float
    poke_late: float
    # Mean seconds between two events of a kind.
    kill_every_s: float
    countdown: float
    """The share of kills that come after so many steps, wherever that is, and not at once."""
    stall_every_s: float
    drain_every_s: float
    # How wrong wall clocks are.
    skew_s: float
    drift: float
    clock_steps_every_s: float
    killers: float
    """The share of runs that may kill their worker."""

    @property
    def clocks_agree(self) -> bool:
        return not (self.skew_s or self.drift or self.clock_steps_every_s)


def draw(seed: int) -> Profile:
    """The profile of a seed."""
    random = Random(f"{seed}/profile")

    def some(share: float, *values: float) -> float:
        return random.choice(values) if random.random() < share else 0.0

    return Profile(
        workers=random.choice((1, 2, 2, 3)),
        submitters=random.choice((1, 1, 2)),
        active_s=random.choice((3.0, 5.0, 8.0)),
        operations=random.choice((10, 16, 24)),
        lease_s=random.choice((12.0, 15.0)),
        disorder=random.choice((0.0, 0.2, 1.0)),
        threads=random.choice((1, 2, 8)),
        on_loop=random.choice((2, 6, 50)),
        refused=some(0.4, 0.02, 0.1),
        reply_lost=some(0.4, 0.02, 0.1),
        late=some(0.4, 0.1, 0.4),
        statement_fails=some(0.3, 0.002, 0.01),
        commit_fails=some(0.4, 0.02, 0.1),
        commit_ambiguous=some(0.4, 0.02, 0.1),
        poke_lost=some(0.4, 0.2, 1.0),
        poke_late=some(0.4, 0.3, 1.0),
        kill_every_s=some(0.6, 1.0, 2.5),
        countdown=random.choice((0.0, 0.5, 1.0)),
        stall_every_s=some(0.4, 2.0, 5.0),
        drain_every_s=some(0.3, 2.0, 5.0),
        skew_s=some(0.3, 0.5, 5.0, 20.0),
        drift=some(0.2, 0.001, 0.05),
        clock_steps_every_s=some(0.15, 2.0),
        killers=some(0.3, 0.05, 0.15),
    )
