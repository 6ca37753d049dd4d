"""Voices: a model's reasoning and its answer, told apart while they come."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from mes.domain import Emit, Event, Logprob, Thought, Token

_THOUGHT_BEGINS, _THOUGHT_ENDS = "<think>", "</think>"
# So many blanks before the first word are no sign that a thought will follow.
_LONGEST_START = 1000


class Voices:
    """What a model has said so far.

    Ollama leaves both voices in one text for models whose template it does not know; a thought
    that is never closed is all reasoning.
    """

    def __init__(self, emit: Emit) -> None:
        self._emit = emit
        self._answer: list[str] = []
        self._reasoning: list[str] = []
        self._held = ""
        self._logprobs: list[Logprob] = []
        self._of_what_is_held: list[Logprob] = []
        self._untold: list[Event] = []
        self._is_passed_on = False
        # Not bound to this object: it would hold itself, and all that was said, until the garbage
        # collector comes by.
        self._how: Callable[[Voices, str], None] = Voices._begin

    def weigh(self, logprobs: Iterable[Logprob]) -> None:
        """Take the probabilities of the next piece, before it is heard."""
        self._of_what_is_held += logprobs

    def hear(self, text: str) -> None:
        """Take the next piece of a text that may hold both."""
        self._how(self, text)

    def think(self, text: str) -> None:
        """Take the next piece of what is reasoning for sure."""
        self._of_what_is_held.clear()
        self._reasoning.append(text)
        self._untold.append(Thought(text))

    def emit(self) -> bool:
        """Tell what was said since the last time; True where all that was told is passed on."""
        if self._untold:
            said, self._untold = self._untold, []
            self._is_passed_on = self._emit(*said)
        return self._is_passed_on

    def end(self) -> tuple[str, str]:
        """The whole reasoning and the whole answer."""
        if self._held:
            (self._say if self._how is Voices._begin else self.think)(self._held)
        return "".join(self._reasoning).strip(), "".join(self._answer)

    @property
    def logprobs(self) -> tuple[Logprob, ...]:
        """Those of the answer."""
        return tuple(self._logprobs)

    def _say(self, text: str) -> None:
        self._answer.append(text)
        token = Token(text, logprobs=self._weighed()) if self._of_what_is_held else Token(text)
        self._untold.append(token)

    def _weighed(self) -> tuple[Logprob, ...]:
        logprobs, self._of_what_is_held = self._of_what_is_held, []
        self._logprobs += logprobs
        return tuple(logprobs)

    def _begin(self, text: str) -> None:
        self._held += text
        start = self._held.lstrip()
        if start.startswith(_THOUGHT_BEGINS):
            self._held = ""
            self._go_on(Voices._until_the_thought_ends, start.removeprefix(_THOUGHT_BEGINS))
        elif not _THOUGHT_BEGINS.startswith(start) or len(self._held) > _LONGEST_START:
            said, self._held = self._held, ""
            self._go_on(Voices._say, said)

    def _until_the_thought_ends(self, text: str) -> None:
        thought, ended, answer = (self._held + text).partition(_THOUGHT_ENDS)
        self._held = "" if ended else _begun(_THOUGHT_ENDS, thought)
        if thought := thought.removesuffix(self._held):
            self.think(thought)
        if ended:
            self._go_on(Voices._until_the_answer_begins, answer)

    def _until_the_answer_begins(self, text: str) -> None:
        if text := text.lstrip():
            self._go_on(Voices._say, text)

    def _go_on(self, how: Callable[[Voices, str], None], text: str) -> None:
        self._how = how
        if text:
            how(self, text)


def _begun(word: str, text: str) -> str:
    """The end of the text that may be the beginning of the word."""
    end = text[text.rfind(word[0]) :] if word[0] in text else ""
    return end if word.startswith(end) else ""
