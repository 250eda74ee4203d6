"""Renders prompts in a checkpoint's chat template and tokenizes them."""

from __future__ import annotations

import datetime
import functools
import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Protocol

from caslie_ray.engines._architectures import Architecture
from caslie_ray.engines._turn_marks import Marks, bracketed, is_bracketed, roles_before
from caslie_ray.engines.cutting import Cut, Fit, cut_prompt, fit_of
from caslie_ray.errors import EngineError
from caslie_ray.prompts import Prompt, Span

__all__ = ["Chat", "Tokenizer"]

# Some templates write today's date into the system prompt; prompts must not change from day to day.
_DATE = datetime.datetime(2024, 7, 26)
_PROBE = "caslie probe"
# Text may take a few more tokens next to the template's own text, or after a prefix space.
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
    """Renders prompts in the chat template of one checkpoint.

    Prompt injection protection: special tokens and turn marks in the text of a prompt (``</s>`` or ``[INST]`` in a
    review) are broken up with a space, so that no text can end a turn or add an image. Turn marks are:

    - the tokens that the template writes, and all added tokens in brackets, special or not;
    - bracketed text of the template, such as ``<|user|>``, ``[/INST]`` or ``<<SYS>>``;
    - the role words that it writes before turns, such as ``USER:`` or ``### Human:``.

    `Marks` documents which variants are found. Other words of a template, such as its default system prompt, are not
    protected.

    Args:
        name: the checkpoint, for messages.
        tokenizer: its tokenizer.
        architecture: which inputs the checkpoint takes.
        template: its chat template, if any.
        image_token: the image placeholder in a prompt; None if the checkpoint takes no images.

    Raises:
        EngineError: the architecture needs a chat template, and there is none or it drops the user's turn.
    """

    def __init__(
        self,
        name: str,
        tokenizer: Tokenizer,
        architecture: Architecture,
        template: str | None,
        image_token: str | None,
    ) -> None:
        if architecture.has_chat_template and not template:
            raise EngineError(
                f"checkpoint {name} has no chat template, so its prompt format is unknown; "
                "use an instruction-tuned checkpoint, or put its chat_template.jinja next to the weights"
            )
        self._name = name
        self._tokenizer = tokenizer
        self._architecture = architecture
        self._template = template
        self._image_token = image_token
        self.longest_token = max(map(len, tokenizer.get_vocab()))
        added = tokenizer.added_tokens_decoder.values()
        tokens = {one.content for one in added if one.special or is_bracketed(one.content, added=True)}
        tokens |= {image_token} if image_token else set()
        roles: set[tuple[bool, str]] = set()
        self._content: Callable[[str, bool], Any] = self._parts if architecture.takes_images else self._plain
        if architecture.has_chat_template:
            self._content = self._probe()
            conversations = self._conversations()
            tokens |= self._turn_tokens("\n".join(conversations))
            # Text up to each turn, and up to the answer.
            roles = roles_before(literal for one in conversations for literal in _TURN.split(one))
        self._marks = Marks(tokens, roles)

    def fit(self, prompt: Prompt, budget: int, *, image: bool, answer: str = "") -> Cut:
        """Cut a prompt to `budget` tokens, including the template and the beginning of an answer.

        An image counts as its placeholder in the template: one token, or none.

        Raises:
            PromptTooLong: it does not fit.
        """
        guarded = self._guard(prompt)

        def encode(text: str) -> list[int]:
            return self.encode(text, image=image, answer=answer)

        return cut_prompt(guarded, budget, encode, self.longest_token)

    def fit_of(self, prompt: Prompt, budget: int) -> Fit:
        """Return what `fit` would cut from a prompt without an image; cheaper than `fit`.

        A prompt is tokenized only if it may be too long: each token is at least one byte of text.
        """
        guarded = self._guard(prompt)
        if len(guarded.text.encode()) + self._template_tokens <= budget:
            return Fit.WHOLE
        return fit_of(guarded, budget, lambda text: self.encode(text, image=False), self.longest_token)

    @functools.cached_property
    def _template_tokens(self) -> int:
        """Upper bound of the tokens that the template adds to a user's turn."""
        return len(self.encode(_PROBE, image=False)) + _SEAM

    def encode(self, text: str, *, image: bool, answer: str = "") -> list[int]:
        """Return the token ids of a user's turn, including the template, and of the beginning of an answer."""
        rendered = self.render(text, image=image)
        if answer:
            rendered += self._around_answer[0] + self._guard(Prompt(answer)).text
        return self._tokenizer.encode(rendered, add_special_tokens=self.adds_special_tokens(rendered))

    def render(self, text: str, *, image: bool) -> str:
        """Return the complete prompt as text: the user's turn in the template, up to where the answer starts."""
        if not self._architecture.has_chat_template:
            return text
        return self._render_content(self._content(text, image))

    def render_answer(self, text: str) -> str:
        """Return what follows the prompt in a training example: the answer and the template's end mark.

        Raises:
            EngineError: the template cannot write an answer.
        """
        before, after = self._around_answer
        return before + self._guard(Prompt(text)).text + after

    @functools.cached_property
    def _around_answer(self) -> tuple[str, str]:
        """What the template writes between prompt and answer, and after the answer."""
        user = {"role": "user", "content": self._content(_PROBE, False)}
        assistant = {"role": "assistant", "content": self._content(_ANSWER, False)}
        try:
            prompt, full = self._apply([user], True), self._apply([user, assistant], False)
        except Exception as error:  # Jinja raises what the template's own expressions raise
            raise EngineError(f"the chat template of {self._name} cannot write an answer: {error}") from error
        if not full.startswith(prompt) or full.count(_ANSWER) != 1:
            raise EngineError(
                f"the chat template of {self._name} renders a prompt differently once it is answered, so it cannot be"
                " trained on; put another one next to the weights (chat_template.jinja)"
            )
        before, after = full[len(prompt) :].split(_ANSWER)
        return before, after

    def adds_special_tokens(self, rendered: str) -> bool:
        """Return whether the tokenizer must add special tokens such as BOS.

        Same rule as `apply_chat_template`: never for a tokenizer's template; for a processor's, only if the template
        wrote no BOS.
        """
        bos: str | None = self._tokenizer.bos_token
        return self._architecture.takes_images and not (bos and rendered.startswith(bos))

    def _plain(self, text: str, image: bool) -> Any:
        return f"{self._image_token}\n{text}" if image else text

    def _parts(self, text: str, image: bool) -> Any:
        images = [{"type": "image"}] if image else []
        return [*images, {"type": "text", "text": text}]

    def _render_content(self, content: Any) -> str:
        return self._apply([{"role": "user", "content": content}], True)

    def _apply(self, turns: list[dict[str, Any]], generation_prompt: bool) -> str:
        rendered: str = self._tokenizer.apply_chat_template(
            turns,
            chat_template=self._template,
            tokenize=False,
            add_generation_prompt=generation_prompt,
            date_string=_DATE.strftime("%d %b %Y"),
            strftime_now=_DATE.strftime,
        )
        return rendered

    def _probe(self) -> Callable[[str, bool], Any]:
        """Return the content format that the template understands: parts, or plain text."""
        images = self._architecture.takes_images
        formats = (self._parts, self._plain) if images else (self._plain, self._parts)
        reason = "it leaves out the user's message"
        for content_of in formats:
            try:
                # Jinja raises what the template's own expressions raise, so any exception.
                turns = [self._render_content(content_of(_PROBE, image)) for image in {False, images}]
            except Exception as error:
                reason = f"{type(error).__name__}: {error}"
                continue
            marks = sum(turn.count(self._image_token) for turn in turns) if self._image_token else 0
            if all(turn.count(_PROBE) == 1 for turn in turns) and marks == int(images):
                return content_of
        raise EngineError(f"the chat template of {self._name} cannot write a user's turn: {reason}")

    def _conversations(self) -> list[str]:
        """Render conversations with every role; their contents match `_TURN`."""
        rendered: list[str] = []
        for roles in (["user"], ["system", "user"], ["user", "assistant"], ["user", "assistant", "user"],
                      ["system", "user", "assistant", "user"]):  # fmt: skip
            turns = [
                {"role": role, "content": self._content(f"caslie turn {n}", False)} for n, role in enumerate(roles)
            ]
            with suppress(Exception):  # not every template has every role, and Jinja raises any type
                rendered.append(self._apply(turns, roles[-1] == "user"))
        return rendered

    def _turn_tokens(self, rendered: str) -> set[str]:
        """Return the tokens that the template writes, and the bracketed marks in its output and its source."""
        added = {token.content for token in self._tokenizer.added_tokens_decoder.values()}
        tokens = {token for token in added if not token.isspace() and not token.isalnum() and token in rendered}
        single = {token for token in self._tokenizer.get_vocab() if is_bracketed(token) and token in rendered}
        # The template's source also has the marks of roles and cases that were not rendered.
        return tokens | single | bracketed(rendered) | bracketed(self._template or "")

    def _guard(self, prompt: Prompt) -> Prompt:
        """Break up each special token and turn mark in the text of a prompt with one space."""
        spaces = self._marks.breaks(prompt.text)
        if not spaces:
            return prompt
        parts = [prompt.text[a:b] for a, b in zip([0, *spaces], [*spaces, len(prompt.text)], strict=True)]

        def moved(spans: tuple[Span, ...]) -> tuple[Span, ...]:
            return tuple((a + bisect_right(spaces, a), b + bisect_left(spaces, b)) for a, b in spans)

        return Prompt(" ".join(parts), moved(prompt.fields), moved(prompt.captions))
