"""The protocols of a runtime, which runs models, and of a client, which waits for an answer.

`Runtime` is the contract of every implementation. All deadlines are absolute times of
`time.monotonic()`, in seconds. Methods may be called from several threads at the same time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from mes.domain.events import Emit, no_op
from mes.domain.inference_request import Prompt
from mes.domain.models import LoadedModel, ModelCard, ModelSpec, PulledModel, PullProgress
from mes.domain.results import Reply, Vectors

# For how long a runtime keeps a model in memory that no request uses and `Runtime.load` is not
# called for again. The models that no name leads to any more leave memory after this time.
KEEP_ALIVE_SECONDS = 600


class Client(Protocol):
    """The client of one request, which may disconnect before it has its answer."""

    @property
    def disconnected(self) -> bool:
        """Whether the client has closed the connection."""

    def on_disconnect(self, callback: Callable[[], None]) -> AbstractContextManager[None]:
        """Return a context in which `callback` is called once if the client disconnects.

        The callback may run in another thread. It is called at once if the client has disconnected
        before.
        """


class Runtime(Protocol):
    """A program that runs models.

    Raises:
        RuntimeUnavailable: from every method, if the runtime cannot be reached.
        RuntimeReplyInvalid: from every method, if the reply does not follow the protocol.
    """

    def generate(
        self, prompt: Prompt, *, deadline: float, client: Client, emit: Emit = no_op
    ) -> Reply:
        """Run one generation to its end, and return the whole reply.

        Tokens and thoughts are emitted as they arrive; the joined tokens are the text of the
        reply. When the deadline passes or the client disconnects, the runtime stops the generation
        within a second.

        Args:
            prompt: the prompt, its options and the format of the answer.
            deadline: the latest end of the generation.
            client: the client that waits for the reply.
            emit: receives Token and Thought events.

        Raises:
            GenerationTimeout: the deadline has passed.
            ClientDisconnected: the client has closed the connection.
            GenerationAborted: the generation ended without its final message.
            SchemaRefused: the runtime cannot decode under `prompt.format`.
            PromptTooLong: the prompt does not fit into the model's context.
            ModelNotPulled: the model is not on the runtime's disk.
            RequestInvalid: the model cannot do what the prompt asks for.
        """

    def detokenize(
        self, spec: ModelSpec, ids: Sequence[int], *, deadline: float, client: Client
    ) -> str:
        """Return the text of these token ids, without a token that only marks its beginning.

        Args:
            ids: token ids of the model's vocabulary.
            deadline: the latest end of the call.
            client: the client that waits for the answer.

        Raises:
            GenerationTimeout, ClientDisconnected, ModelNotPulled: as in `generate`.
            NotCapable: the runtime cannot convert token ids.
            RequestInvalid: an id is not in the vocabulary.
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
        """Return a vector for each text, in the order of `texts`.

        Args:
            dimensions: the length of each vector; None for the model's own length.
            deadline: the latest end of the whole call.
            client: the client that waits for the vectors.

        Raises:
            GenerationTimeout, ClientDisconnected, PromptTooLong, ModelNotPulled: as in `generate`.
            RequestInvalid: the model makes no vectors, or none of that length.
        """

    def load(self, spec: ModelSpec, *, deadline: float) -> None:
        """Load the model with its load options, and return when it is ready.

        The runtime keeps the model until it was not used for KEEP_ALIVE_SECONDS; for a model that
        is in memory this time begins again.

        Raises:
            LoadFailed: the runtime could not load the model.
            LoadTimeout: the deadline has passed.
            ModelNotPulled: the model is not on the runtime's disk.
        """

    def unload(self, name: str) -> None:
        """Ask the runtime to unload the model. `loaded` may list it for a moment longer."""

    def loaded(self) -> list[LoadedModel]:
        """Return the models in memory, without those that are still being loaded."""

    def pulled(self) -> list[PulledModel]:
        """Return the models on disk."""

    def version(self) -> str:
        """Return the runtime's name and version, such as "ollama 0.33.0"."""

    def card(self, name: str) -> ModelCard:
        """Return the runtime's description of one model.

        Raises:
            ModelNotPulled: the model is not on the runtime's disk.
        """

    def pull(self, name: str, *, deadline: float, client: Client) -> Iterator[PullProgress]:
        """Download a model to the runtime's disk, and yield the progress.

        The pull is complete when the iterator is exhausted. Closing the iterator cancels the pull.
        Only one thread may iterate.

        Raises:
            PullFailed: the model cannot be downloaded, or the deadline has passed.
            ClientDisconnected: the client has closed the connection.
        """

    def delete(self, name: str) -> None:
        """Delete the model from the runtime's disk. It must have been unloaded before.

        Raises:
            ModelNotPulled: the model is not on the runtime's disk.
        """

    def shut_down(self) -> None:
        """End all calls that run, and all later ones, with ShuttingDown. Return at once."""
