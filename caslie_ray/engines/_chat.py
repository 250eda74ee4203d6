"""From a user's turn to the tokens that a checkpoint reads."""

from __future__ import annotations

import datetime
import functools
import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Protocol

from caslie_ray.engines._families import Family
from caslie_ray.engines._marks import Marks, bracketed, is_bracketed, roles_before
from caslie_ray.engines.cutting import Cut, Fit, cut_prompt, fit_of
from caslie_ray.errors import EngineError
from caslie_ray.prompts import Prompt, Span

__all__ = ["Chat", "Tokenizer"]

# Some templates write today's date into the system prompt. The same prompt must be the same tomorrow.
_DATE = datetime.datetime(2024, 7, 26)
_PROBE = "caslie probe"
# Text may be split into a few tokens more beside the template's own text, or behind a prefix space.
_SEAM = 8
_ANSWER = "caslie answer"
_TURN = re.compile(r"caslie turn \d")


class Tokenizer(Protocol):
    """The part of a transformers tokenizer that is used here."""

    @property
    def bos_token(self) -> Any: ...
    @property
    def added_tokens_decoder(self) -> Mapping[int, Any]: ...
    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]: ...
    def apply_chat_template(self, conversation: list[dict[str, Any]], **settings: Any) -> Any: ...
    def get_vocab(self) -> dict[str, int]: ...


class Chat:
    """Writes prompts the way one checkpoint was taught to read them.

    The chat template is the checkpoint's own. Special tokens and turn marks in the text of a prompt (``</s>`` or
    ``[INST]`` in a review) are broken up with a space, so that no text can end a turn or add an image. Turn marks are:

    - the tokens that the template writes, and all added tokens in brackets, special or not;
    - what the template writes in brackets, such as ``<|user|>``, ``[/INST]`` or ``<<SYS>>``;
    - the role words that it writes before turns, such as ``USER:`` or ``### Human:``.

    `Marks` says which variants of them are found. Other words of a template, such as its default system prompt, are
    left as they are.

    Args:
        name: the checkpoint, for messages.
        tokenizer: its tokenizer.
        family: what the checkpoint takes.
        template: its chat template; None where it has none.
        image_token: stands for the image in a prompt; None where the checkpoint takes no images.

    Raises:
        EngineError: the family needs a chat template, and there is none or it leaves out the user's turn.
    """

    def __init__(
        self, name: str, tokenizer: Tokenizer, family: Family, template: str | None, image_token: str | None
    ) -> None:
        if family.chat and not template:
            raise EngineError(
                f"checkpoint {name} has no chat template, so there is no telling how it wants to be asked; "
                "use an instruction-tuned checkpoint, or put its chat_template.jinja beside the weights"
            )
        self._name = name
        self._tokenizer = tokenizer
        self._family = family
        self._template = template
        self._image_token = image_token
        self.longest_token = max(map(len, tokenizer.get_vocab()))
        added = tokenizer.added_tokens_decoder.values()
        tokens = {one.content for one in added if one.special or is_bracketed(one.content, added=True)}
        tokens |= {image_token} if image_token else set()
        roles: set[tuple[bool, str]] = set()
        self._content: Callable[[str, bool], Any] = self._parts if family.sees else self._plain
        if family.chat:
            self._content = self._probe()
            written = self._conversations()
            tokens |= self._turn_tokens("\n".join(written))
            # Text up to each turn, and up to the answer.
            roles = roles_before(literal for one in written for literal in _TURN.split(one))
        self._marks = Marks(tokens, roles)

    def fit(self, prompt: Prompt, budget: int, *, image: bool) -> Cut:
        """Cut a prompt to `budget` tokens, template included.

        An image counts as what stands for it in the template: a token, or nothing.

        Raises:
            PromptTooLong: it does not fit.
        """
        guarded = self._guard(prompt)
        return cut_prompt(guarded, budget, lambda text: self.encode(text, image=image), self.longest_token)

    def fit_of(self, prompt: Prompt, budget: int) -> Fit:
        """Return what a prompt without an image loses where `fit` cuts it to `budget` tokens; cheaper than `fit`.

        A prompt is tokenized only where it may be too long: a token stands for at least one byte of text.
        """
        guarded = self._guard(prompt)
        if len(guarded.text.encode()) + self._template_tokens <= budget:
            return Fit.WHOLE
        return fit_of(guarded, budget, lambda text: self.encode(text, image=False), self.longest_token)

    @functools.cached_property
    def _template_tokens(self) -> int:
        """Upper bound of the tokens that the template adds to a user's turn."""
        return len(self.encode(_PROBE, image=False)) + _SEAM

    def encode(self, text: str, *, image: bool) -> list[int]:
        """The token ids of a user's turn, template included."""
        written = self.write(text, image=image)
        return self._tokenizer.encode(written, add_special_tokens=self.adds_special_tokens(written))

    def write(self, text: str, *, image: bool) -> str:
        """The whole prompt as text: the user's turn in the template, ready for the answer."""
        if not self._family.chat:
            return text
        return self._render(self._content(text, image))

    def answer(self, text: str) -> str:
        """What follows a prompt that is answered with `text`: the answer, and the template's mark of its end.

        Raises:
            EngineError: the template cannot write an answer.
        """
        before, after = self._around_answer
        return before + self._guard(Prompt(text)).text + after

    @functools.cached_property
    def _around_answer(self) -> tuple[str, str]:
        """What the template writes before and after an answer, once the prompt is there."""
        asked = {"role": "user", "content": self._content(_PROBE, False)}
        told = {"role": "assistant", "content": self._content(_ANSWER, False)}
        try:
            prompt, whole = self._turns([asked], True), self._turns([asked, told], False)
        except Exception as error:  # Jinja raises what the template's own expressions raise
            raise EngineError(f"the chat template of {self._name} cannot write an answer: {error}") from error
        if not whole.startswith(prompt) or whole.count(_ANSWER) != 1:
            raise EngineError(
                f"the chat template of {self._name} writes a prompt otherwise once it is answered, so it cannot be"
                " trained on; put one beside the weights (chat_template.jinja) that does not"
            )
        before, after = whole[len(prompt) :].split(_ANSWER)
        return before, after

    def adds_special_tokens(self, written: str) -> bool:
        """Whether the tokenizer shall add its own special tokens, such as BOS.

        As `apply_chat_template` does it: never for a tokenizer's template, and for a processor's where the
        template wrote no BOS.
        """
        bos: str | None = self._tokenizer.bos_token
        return self._family.sees and not (bos and written.startswith(bos))

    def _plain(self, text: str, image: bool) -> Any:
        return f"{self._image_token}\n{text}" if image else text

    def _parts(self, text: str, image: bool) -> Any:
        shown = [{"type": "image"}] if image else []
        return [*shown, {"type": "text", "text": text}]

    def _render(self, content: Any) -> str:
        return self._turns([{"role": "user", "content": content}], True)

    def _turns(self, turns: list[dict[str, Any]], asking: bool) -> str:
        written: str = self._tokenizer.apply_chat_template(
            turns,
            chat_template=self._template,
            tokenize=False,
            add_generation_prompt=asking,
            date_string=_DATE.strftime("%d %b %Y"),
            strftime_now=_DATE.strftime,
        )
        return written

    def _probe(self) -> Callable[[str, bool], Any]:
        """The way of writing content that the template understands: as parts, or as plain text."""
        ways = (self._parts, self._plain) if self._family.sees else (self._plain, self._parts)
        reason = "it leaves out what the user says"
        for way in ways:
            try:
                # Jinja raises what the template's own expressions raise, hence any exception.
                turns = [self._render(way(_PROBE, image)) for image in {False, self._family.sees}]
            except Exception as error:
                reason = f"{type(error).__name__}: {error}"
                continue
            marks = sum(turn.count(self._image_token) for turn in turns) if self._image_token else 0
            if all(turn.count(_PROBE) == 1 for turn in turns) and marks == int(self._family.sees):
                return way
        raise EngineError(f"the chat template of {self._name} cannot write a user's turn: {reason}")

    def _conversations(self) -> list[str]:
        """Return conversations of every role as the template writes them; their contents match `_TURN`."""
        written: list[str] = []
        for roles in (["user"], ["system", "user"], ["user", "assistant"], ["user", "assistant", "user"],
                      ["system", "user", "assistant", "user"]):  # fmt: skip
            turns = [
                {"role": role, "content": self._content(f"caslie turn {n}", False)} for n, role in enumerate(roles)
            ]
            with suppress(Exception):  # Jinja raises what the template raises: not every template has every role
                written.append(self._turns(turns, roles[-1] == "user"))
        return written

    def _turn_tokens(self, written: str) -> set[str]:
        """Return the tokens that the template itself writes, and what it writes or has in the brackets of marks."""
        added = {token.content for token in self._tokenizer.added_tokens_decoder.values()}
        tokens = {token for token in added if not token.isspace() and not token.isalnum() and token in written}
        single = {token for token in self._tokenizer.get_vocab() if is_bracketed(token) and token in written}
        # The source of the template has the marks of roles and cases that were not tried.
        return tokens | single | bracketed(written) | bracketed(self._template or "")

    def _guard(self, prompt: Prompt) -> Prompt:
        """Break up special tokens and turn marks in the text of a prompt, each by one space."""
        spaces = self._marks.breaks(prompt.text)
        if not spaces:
            return prompt
        parts = [prompt.text[a:b] for a, b in zip([0, *spaces], [*spaces, len(prompt.text)], strict=True)]

        def moved(spans: tuple[Span, ...]) -> tuple[Span, ...]:
            return tuple((a + bisect_right(spaces, a), b + bisect_left(spaces, b)) for a, b in spans)

        return Prompt(" ".join(parts), moved(prompt.fields), moved(prompt.captions))
