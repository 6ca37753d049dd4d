"""Whoever runs models, and whoever waits for them: interfaces with two implementations."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from mes.domain.events import Emit, no_op
from mes.domain.inference_request import Prompt
from mes.domain.models import LoadedModel, ModelCard, ModelSpec, PulledModel, PullProgress
from mes.domain.results import Reply, Vectors


class Client(Protocol):
    """Whoever waits for an answer, and may stop waiting."""

    @property
    def gone(self) -> bool:
        """Has the caller hung up?"""

    def on_disconnect(self, act: Callable[[], None]) -> AbstractContextManager[None]:
        """Inside the block, `act` is called once, from another thread, if the caller hangs up.

        At once where it has hung up already.
        """


class Runtime(Protocol):
    """Who runs the models. Deadlines are times of `time.monotonic()`.

    Every method raises RuntimeUnavailable where the runtime cannot be reached and
    RuntimeReplyInvalid where it answers nonsense.
    """

    def generate(
        self, prompt: Prompt, *, deadline: float, client: Client, emit: Emit = no_op
    ) -> Reply:
        """Run one generation to its end, telling its tokens and thoughts as they come.

        Raises GenerationTimeout at the deadline, CallerGone once the caller has hung up (the
        generation is cancelled in the runtime within a second either way), GenerationAborted
        where it broke off, SchemaRefused, PromptTooLong, ModelNotPulled; RequestInvalid for what
        the model cannot do. All the tokens joined are the reply's text.
        """

    def embed(
        self,
        spec: ModelSpec,
        texts: Sequence[str],
        *,
        dimensions: int | None,
        deadline: float,
        client: Client,
    ) -> Vectors:
        """Make a vector of each text; of so many dimensions, where that is said.

        Raises what `generate` raises, as far as it applies; RequestInvalid where the model cannot
        make vectors, or none of that length.
        """

    def load(self, spec: ModelSpec, *, deadline: float) -> None:
        """Load and wait until ready. Raises LoadFailed, LoadTimeout, ModelNotPulled."""

    def unload(self, name: str) -> None:
        """Ask for the model to leave memory. It may still be listed for a moment."""

    def loaded(self) -> list[LoadedModel]:
        """The models in memory; those still loading are not listed."""

    def pulled(self) -> list[PulledModel]:
        """The models on disk."""

    def version(self) -> str:
        """What runs, such as "ollama 0.33.0"."""

    def card(self, name: str) -> ModelCard:
        """What the runtime knows of one model. Raises ModelNotPulled."""

    def pull(self, name: str, *, deadline: float, client: Client) -> Iterator[PullProgress]:
        """Fetch a model onto the runtime's disk, telling how it goes; complete at the end.

        To be iterated by one thread. Raises PullFailed, also at the deadline, and CallerGone once
        the caller has hung up. Closing the iterator ends the pull too.
        """

    def shut(self) -> None:
        """End all that is under way, and whatever still comes, with ShuttingDown; do not block."""
