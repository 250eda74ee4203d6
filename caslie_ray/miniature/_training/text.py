"""Tokenizers and chat templates of the miniature language models."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from random import Random

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from caslie_ray.miniature._records import prompts_of, sample_of
from caslie_ray.miniature._samples import MAKERS, DrawnSample, World
from caslie_ray.miniature.truth import CONTEXT_FREE, caption_of, context_free_caption
from caslie_ray.tasks import find_task

__all__ = ["CONTEXT", "STYLES", "ChatStyle", "new_tokenizer", "world_samples", "world_texts"]

CONTEXT = 2048  # positions of every miniature language model


@dataclass(frozen=True, slots=True)
class ChatStyle:
    """The turn marks of a model family.

    Attributes:
        user: before a user turn.
        close: after a user turn.
        assistant: before the model's turn.
        end: the token that ends the model's turn.
        specials: special tokens.
    """

    user: str
    close: str
    assistant: str
    end: str
    specials: tuple[str, ...]

    @property
    def template(self) -> str:
        """The Jinja chat template; a system turn is rendered like a user turn."""
        user, close, assistant, end = (
            text.replace("\n", "\\n") for text in (self.user, self.close, self.assistant, self.end)
        )
        return (
            "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'assistant' %}"
            f"{{{{ '{assistant}' + m['content'] + '{end}' }}}}{{% else %}}"
            f"{{{{ '{user}' + m['content'] + '{close}' }}}}{{% endif %}}{{% endfor %}}"
            f"{{% if add_generation_prompt %}}{{{{ '{assistant}' }}}}{{% endif %}}"
        )

    def prompt(self, text: str) -> str:
        """Return a user turn as rendered by `template` with a generation prompt."""
        return f"<s>{self.user}{text}{self.close}{self.assistant}"


STYLES = {
    "llama": ChatStyle(
        user="<|start_header_id|>user<|end_header_id|>\n\n",
        close="<|eot_id|>",
        assistant="<|start_header_id|>assistant<|end_header_id|>\n\n",
        end="<|eot_id|>",
        specials=("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
    ),
    "mistral": ChatStyle(user="[INST] ", close=" [/INST]", assistant="", end="</s>", specials=("[INST]", "[/INST]")),
    "qwen": ChatStyle(
        user="<|im_start|>user\n",
        close="<|im_end|>\n",
        assistant="<|im_start|>assistant\n",
        end="<|im_end|>",
        specials=("<|im_start|>", "<|im_end|>"),
    ),
    "phi": ChatStyle(
        user="<|user|>\n",
        close="<|end|>\n",
        assistant="<|assistant|>\n",
        end="<|end|>",
        specials=("<|user|>", "<|assistant|>", "<|end|>"),
    ),
}


def world_samples(rng: Random, count: int) -> Iterator[DrawnSample]:
    """Draw samples of all tasks and both domains, without the held-out combinations."""
    names = tuple(MAKERS)
    for i in range(count):
        if i % 64 == 0:
            world = World(rng, rng.choice(("tools", "sports", None)), combinations="seen")
        yield MAKERS[rng.choice(names)](world)


def world_texts(rng: Random, count: int) -> Iterator[str]:
    """Yield prompts, captions and task turns to train tokenizers on; answers are not next to their prompts."""
    for sample in world_samples(rng, count):
        for view, prompts in zip(sample.views, prompts_of(sample), strict=True):
            yield prompts.caption.text
            yield prompts.quality.text
            yield caption_of(view)
            yield context_free_caption(view)
        task = find_task(sample.task)
        yield task.prompt(sample_of(sample), [None] * len(sample.views)).text
        yield CONTEXT_FREE
        yield from ("yes", "no", "Yes", "No", " yes", " no", " Yes", " No")


def new_tokenizer(
    texts: Iterable[str], style: ChatStyle, *, size: int, specials: tuple[str, ...] = ()
) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer with the special tokens and the chat template of a style."""
    names = ["<pad>", "<s>", "</s>", "<unk>", *style.specials, *specials]
    inner = Tokenizer(models.BPE(unk_token=None))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    inner.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=size, special_tokens=names, initial_alphabet=sorted(alphabet), show_progress=False
        ),
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token=style.end,
        unk_token="<unk>",
        additional_special_tokens=[*style.specials, *specials],
        padding_side="left",
        model_max_length=CONTEXT,
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = style.template
    return tokenizer
