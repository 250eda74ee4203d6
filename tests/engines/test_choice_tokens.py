"""The first tokens of each choice."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from caslie_ray.engines._choice_tokens import first_token_ids
from caslie_ray.errors import EngineError

CORPUS = ["yes no Yes No YES NO maybe also buy also view " * 20]


def byte_level() -> Tokenizer:
    """As Llama-3, Qwen and SmolLM write words: a leading space is part of the token."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator(
        CORPUS, trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False)
    )
    return made


def metaspace() -> Tokenizer:
    """As Llama-2, Mistral and Phi-3 write words: a space is put before any text."""
    made = Tokenizer(models.BPE(unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=True)
    made.decoder = decoders.Metaspace()
    trainer = trainers.BpeTrainer(vocab_size=200, special_tokens=["<unk>", "\n"], show_progress=False)
    made.train_from_iterator(CORPUS, trainer)
    return made


def encoder(tokenizer: Tokenizer) -> Callable[[str], list[int]]:
    return lambda text: list(tokenizer.encode(text, add_special_tokens=False).ids)


def names(tokenizer: Tokenizer, ids: tuple[int, ...]) -> set[str]:
    return {str(tokenizer.id_to_token(token)) for token in ids}


def test_spellings_of_a_byte_level_tokenizer() -> None:
    words = byte_level()
    yes, no = first_token_ids(encoder(words), ["yes", "no"], None)
    assert {"yes", "Ġyes", "Yes", "ĠYes", "YES", "ĠYES", "y", "Y"} >= names(words, yes) >= {"Ġyes", "ĠYes"}
    assert {"no", "Ġno", "No", "ĠNo", "NO", "ĠNO", "n", "N"} >= names(words, no) >= {"Ġno", "ĠNo"}
    assert not set(yes) & set(no)


def test_spellings_of_a_tokenizer_that_puts_a_space_first() -> None:
    words = metaspace()
    yes, no = first_token_ids(encoder(words), ["yes", "no"], words.token_to_id("<unk>"))
    assert {"▁yes", "▁Yes"} <= names(words, yes)
    assert {"▁no", "▁No"} <= names(words, no)
    assert any(not name.startswith("▁") for name in names(words, yes))  # after a line break no space is put
    assert "▁" not in names(words, yes) | names(words, no)
    assert "<unk>" not in names(words, yes) | names(words, no)


def test_shared_tokens_are_left_out() -> None:
    def letters(text: str) -> list[int]:
        return [ord(letter) for letter in text]

    (ma, ba) = first_token_ids(letters, ["ma", "ba"], None)
    assert ma == (ord("M"), ord("m"))
    assert ba == (ord("B"), ord("b"))
    assert ord(" ") not in ma + ba  # each spelling with a space begins with it


def test_a_choice_without_a_token_of_its_own_is_an_error() -> None:
    with pytest.raises(EngineError, match="'also buy' has no first token of its own"):
        first_token_ids(encoder(byte_level()), ["also buy", "also view"], None)


@pytest.mark.parametrize("choices", [[], ["yes"], ["yes", "YES"], ["no", " no"]])
def test_choices_must_differ(choices: list[str]) -> None:
    with pytest.raises(ValueError, match="at least two choices, all of them different"):
        first_token_ids(encoder(byte_level()), choices, None)
