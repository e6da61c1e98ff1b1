"""How long what is random goes on: some seconds in `make test`, FUZZ_MINUTES in `make fuzz`."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, Phase, settings

MINUTES = float(os.environ.get("FUZZ_MINUTES", "0"))
"""0 for the short run."""


def fuzz(examples: int, examples_a_minute: int) -> settings:
    """So many examples in the short run; in the long one so many for each of its minutes.

    The short one has the same each time: what is found by chance belongs into the long one, where a
    failure tells how to have it again.
    """
    return settings(
        max_examples=int(MINUTES * examples_a_minute) if MINUTES else examples,
        deadline=None,
        derandomize=not MINUTES,
        database=None,
        print_blob=True,
        phases=[Phase.explicit, Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
