"""A server elsewhere that speaks OpenAI's API: vLLM on a cluster, another Footplate, a cloud.

Nothing is started for it. What it does not know of our parameters, it says itself.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from footplate_daemon.errors import Unavailable
from footplate_daemon.runtimes.base import (
    Cause,
    Launch,
    LaunchPlan,
    Load,
    Progress,
    SleepCalls,
)
from footplate_daemon.runtimes.cases import Case, Need
from footplate_daemon.runtimes.parameters import SpeaksOpenAI

CANNOT: Mapping[Case, str] = {}
NEEDS: Mapping[Case, Need] = {}
"""What it can do is the other server's to say."""


class Remote(SpeaksOpenAI):
    """Asks; starts nothing."""

    name = "remote"
    cannot = CANNOT
    needs = NEEDS

    def find(self) -> str | None:
        """Give a word that is no program: there is nothing to install."""
        return "elsewhere"

    def launch(self, plan: LaunchPlan) -> Launch:
        """Raise `Unavailable`: nothing is started for it."""
        raise Unavailable(f"{plan.variant} runs elsewhere: Footplate asks it and starts nothing.")

    def health_path(self) -> str:
        """The model list: many servers have no other path that says whether they serve."""
        return "/v1/models"

    def serves(self, listing: Any, served_name: str) -> bool:
        """Whether a model of that name is listed."""
        models = listing.get("data") if isinstance(listing, dict) else None
        return any(isinstance(model, dict) and model.get("id") == served_name for model in models or ())

    def progress(self, line: str) -> Progress | None:  # noqa: ARG002
        """None: its log is elsewhere."""
        return None

    def recognise(self, log: Sequence[str], exit_code: int | None) -> Cause | None:  # noqa: ARG002
        """None: its log is elsewhere."""
        return None

    def sleeping(self, plan: LaunchPlan) -> SleepCalls | None:  # noqa: ARG002
        """None: its memory is not ours to give back."""
        return None

    def load(self, metrics: str) -> Load:  # noqa: ARG002
        """Nothing: what it has to do is not for us alone."""
        return Load()
