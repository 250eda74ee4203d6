"""Chat templates as they are published for the families of the profiles' lineups, and the tokens they go with."""

from __future__ import annotations

from typing import NamedTuple

from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AddedToken, PreTrainedTokenizerFast

from caslie_ray.engines._architectures import IMAGE_ARCHITECTURES, TEXT_ARCHITECTURE
from caslie_ray.engines._chat import Chat


class Published(NamedTuple):
    """A chat template.

    Attributes:
        template: its source.
        special: added tokens that the tokenizer calls special.
        plain: added tokens that it does not call special.
        marks: what of the template, or of the tokens, ends or begins a turn; all of it is to be broken up.
        words: words that the template writes around its marks; they must not be changed.
        family: the image family; None for text.
        image: the image token.
    """

    template: str
    special: tuple[str, ...]
    plain: tuple[str, ...]
    marks: tuple[str, ...]
    words: tuple[str, ...] = ()
    family: str | None = None
    image: str | None = None


_LLAMA_3_TURN = (
    "{{ '<|start_header_id|>' + m['role'] + '<|end_header_id|>\n\n' + (m['content'] if m['content'] is string else"
    " m['content'] | map(attribute='text') | select('string') | join('')) | trim + '<|eot_id|>' }}"
)
_LLAMA_3 = (
    "{{ bos_token }}{% for m in messages %}" + _LLAMA_3_TURN + "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
_LLAMA_32 = (
    "{{ bos_token }}{% set system = messages[0]['content'] if messages[0]['role'] == 'system' else '' %}"
    "{{ '<|start_header_id|>system<|end_header_id|>\n\nCutting Knowledge Date: December 2023\nToday Date: '"
    " + date_string + '\n\n' + system + '<|eot_id|>' }}"
    "{% for m in messages if m['role'] != 'system' %}" + _LLAMA_3_TURN + "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
_MLLAMA = (
    "{{ bos_token }}{% for m in messages %}{{ '<|start_header_id|>' + m['role'] + '<|end_header_id|>\n\n' }}"
    "{% if m['content'] is string %}{{ m['content'] }}{% else %}{% for part in m['content'] %}"
    "{{ '<|image|>' if part['type'] == 'image' else part['text'] }}{% endfor %}{% endif %}{{ '<|eot_id|>' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
_LLAMA_3_MARKS = ("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>",
                  "<|eom_id|>", "<|python_tag|>", "<|reserved_special_token_7|>")  # fmt: skip
_LLAMA_2 = (
    "{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}"
    "{% set system_message = messages[0]['content'] %}"
    "{% else %}{% set loop_messages = messages %}{% set system_message = false %}{% endif %}"
    "{% for message in loop_messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "{% if loop.index0 == 0 and system_message != false %}"
    "{% set content = '<<SYS>>\n' + system_message + '\n<</SYS>>\n\n' + message['content'] %}"
    "{% else %}{% set content = message['content'] %}{% endif %}"
    "{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}"
    "{% elif message['role'] == 'assistant' %}{{ ' ' + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}"
)
_MISTRAL = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}{{ '[INST] ' + m['content'] + '[/INST]' }}"
    "{% elif m['role'] == 'assistant' %}{{ ' ' + m['content'] + eos_token }}"
    "{% else %}{{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}{% endfor %}"
)
_PHI_35 = (
    "{% for message in messages %}{% if message['role'] == 'system' and message['content'] %}"
    "{{'<|system|>\n' + message['content'] + '<|end|>\n'}}{% elif message['role'] == 'user' %}"
    "{{'<|user|>\n' + message['content'] + '<|end|>\n'}}{% elif message['role'] == 'assistant' %}"
    "{{'<|assistant|>\n' + message['content'] + '<|end|>\n'}}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}"
)
_GEMMA_2 = (
    "{{ bos_token }}"
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for message in messages %}{% set role = 'model' if message['role'] == 'assistant' else message['role'] %}"
    "{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{'<start_of_turn>model\n'}}{% endif %}"
)
_QWEN_25 = (
    "{% if messages[0]['role'] == 'system' %}{{ '<|im_start|>system\n' + messages[0]['content'] + '<|im_end|>\n' }}"
    "{% else %}{{ '<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant."
    "<|im_end|>\n' }}{% endif %}{% for m in messages %}{% if m['role'] == 'user' or m['role'] == 'assistant' %}"
    "{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n' }}"
    "{% elif m['role'] == 'tool' %}{{ '<tool_response>\n' + m['content'] + '\n</tool_response>' }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
_VICUNA = (
    "{% if messages[0]['role'] == 'system' %}{{ messages[0]['content'] }}{% else %}A chat between a curious user and an"
    " artificial intelligence assistant. The assistant gives helpful, detailed, and polite answers to the user's"
    " questions.{% endif %}{% for m in messages %}{% if m['role'] == 'user' %} USER: {{ m['content'] }}"
    "{% elif m['role'] == 'assistant' %} ASSISTANT: {{ m['content'] }}{{ eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %} ASSISTANT:{% endif %}"
)
_LLAVA_15 = (
    "{% for message in messages %}{% if message['role'] != 'system' %}{{ message['role'].upper() + ': '}}{% endif %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'image') %}{{ '<image>\n' }}{% endfor %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}{{ content['text'] + ' '}}"
    "{% endfor %}{% endfor %}{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)
_LLAVA_NEXT = (
    "{% for message in messages %}{% if message['role'] == 'system' %}{{ '<<SYS>>\n' + message['content'][0]['text'] +"
    " '\n<</SYS>>\n\n' }}{% elif message['role'] == 'user' %}{{ '[INST] ' }}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'image') %}{{ '<image>\n' }}{% endfor %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}{{ content['text'] }}{% endfor %}"
    "{{' [/INST]' }}{% elif message['role'] == 'assistant' %}{{ ' ' + message['content'][0]['text'] + '</s> ' }}"
    "{% endif %}{% endfor %}"
)
_IDEFICS_3 = (
    "<|im_start|>{% for m in messages %}{{ m['role'] | capitalize }}"
    "{% if m['content'][0]['type'] == 'image' %}{{ ':' }}{% else %}{{ ': ' }}{% endif %}"
    "{% for part in m['content'] %}{{ '<image>' if part['type'] == 'image' else part['text'] }}{% endfor %}"
    "<end_of_utterance>\n{% endfor %}{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)
_VICUNA_0 = (
    "A chat between a human and an assistant.\n\n{% for m in messages %}"
    "{{ '### ' + ('Human' if m['role'] == 'user' else m['role'] | capitalize) + ': ' + m['content'] + '\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '### Assistant:' }}{% endif %}"
)
_ALPACA = (
    "{% for m in messages %}{% if m['role'] == 'user' %}{{ '### Instruction:\n' + m['content'] + '\n\n' }}"
    "{% else %}{{ '### Response:\n' + m['content'] + '\n\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '### Response:\n' }}{% endif %}"
)
_DEEPSEEK = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}{{ '<｜User｜>' + m['content'] }}"
    "{% else %}{{ '<｜Assistant｜>' + m['content'] + '<｜end▁of▁sentence｜>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<｜Assistant｜>' }}{% endif %}"
)
_LLAMA_2_TOKENS = ("<s>", "</s>", "<unk>")
_INST = ("[INST]", "[/INST]")
_SYS = ("<<SYS>>", "<</SYS>>")
_CHAT = ("chat", "between", "curious", "assistant. The", "questions.", "user's")

PUBLISHED: dict[str, Published] = {
    "Llama-2-chat": Published(_LLAMA_2, _LLAMA_2_TOKENS, (), (*_LLAMA_2_TOKENS, *_INST, *_SYS)),
    "Llama-3": Published(_LLAMA_3, _LLAMA_3_MARKS, (), _LLAMA_3_MARKS),
    "Llama-3.2": Published(
        _LLAMA_32, _LLAMA_3_MARKS, (), _LLAMA_3_MARKS, ("Date:", "Today Date: 26 Jul 2024", "December 2023")
    ),
    "Llama-3.2-Vision": Published(
        _MLLAMA, (*_LLAMA_3_MARKS, "<|image|>"), (), (*_LLAMA_3_MARKS, "<|image|>"), (), "mllama", "<|image|>"
    ),
    "Mistral-v0.3": Published(
        _MISTRAL, ("<s>", "</s>", *_INST, "[AVAILABLE_TOOLS]"), (), ("<s>", "</s>", *_INST, "[AVAILABLE_TOOLS]")
    ),
    "Mistral, marks not special": Published(_MISTRAL, ("<s>",), ("</s>", *_INST), ("<s>", "</s>", *_INST)),
    "Mistral, marks in no vocabulary": Published(_MISTRAL, _LLAMA_2_TOKENS, (), ("<s>", "</s>", *_INST)),
    "Phi-3.5": Published(
        _PHI_35, ("<s>", "<|endoftext|>", "<|user|>", "<|assistant|>", "<|system|>", "<|end|>", "<|placeholder1|>"),
        ("</s>",),
        ("<s>", "</s>", "<|endoftext|>", "<|user|>", "<|assistant|>", "<|system|>", "<|end|>", "<|placeholder1|>"),
    ),
    "Gemma-2": Published(
        _GEMMA_2, ("<bos>", "<eos>", "<pad>", "<start_of_turn>", "<end_of_turn>"), ("<unused7>", "[@BOS@]"),
        ("<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>", "<unused7>", "[@BOS@]"),
    ),
    "Qwen2.5": Published(
        _QWEN_25, ("<|endoftext|>", "<|im_start|>", "<|im_end|>"), ("<tool_call>", "</tool_call>", "<|fim_middle|>"),
        ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<tool_call>", "</tool_call>", "<tool_response>",
         "<|fim_middle|>"),
        ("You are Qwen", "Alibaba Cloud.", "helpful assistant."),
    ),
    "SmolLM2": Published(
        _QWEN_25.replace("Qwen, created by Alibaba Cloud.", "a helpful AI assistant named SmolLM."),
        ("<|endoftext|>", "<|im_start|>", "<|im_end|>"), (), ("<|endoftext|>", "<|im_start|>", "<|im_end|>"),
        ("named SmolLM.",),
    ),
    "Vicuna-1.5": Published(_VICUNA, _LLAMA_2_TOKENS, (), ("<s>", "</s>", "USER:", "ASSISTANT:"), _CHAT),
    "LLaVA-1.5": Published(
        _LLAVA_15, (*_LLAMA_2_TOKENS, "<image>", "<pad>"), (), ("<s>", "</s>", "<image>", "USER:", "ASSISTANT:"), (),
        "llava", "<image>",
    ),
    "LLaVA-NeXT": Published(
        _LLAVA_NEXT, (*_LLAMA_2_TOKENS, "<image>", "<pad>"), (), ("<s>", "</s>", "<image>", *_INST, *_SYS), (),
        "llava_next", "<image>",
    ),
    "Idefics3": Published(
        _IDEFICS_3, ("<|begin_of_text|>", "<|im_start|>", "<end_of_utterance>", "<image>", "<fake_token_around_image>"),
        ("<row_1_col_1>",),
        ("<|begin_of_text|>", "<|im_start|>", "<end_of_utterance>", "<image>", "<fake_token_around_image>",
         "<row_1_col_1>", "User:", "Assistant:"),
        (), "idefics3", "<image>",
    ),
    "Vicuna-0": Published(
        _VICUNA_0, _LLAMA_2_TOKENS, (), ("<s>", "</s>", "### Human:", "### Assistant:"), ("Human", "A chat between")
    ),
    "Alpaca": Published(
        _ALPACA, _LLAMA_2_TOKENS, (), ("<s>", "</s>", "### Instruction:", "### Response:"), ("Instruction: none",)
    ),
    "DeepSeek": Published(
        _DEEPSEEK, ("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"), ("<｜User｜>", "<｜Assistant｜>"),
        ("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>"),
    ),
}  # fmt: skip


def byte_tokenizer(special: tuple[str, ...], plain: tuple[str, ...]) -> PreTrainedTokenizerFast:
    """Return a tokenizer of single bytes, and of these tokens."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    raw = Tokenizer(models.BPE(vocab={char: number for number, char in enumerate(alphabet)}, merges=[]))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    made = PreTrainedTokenizerFast(tokenizer_object=raw)
    made.add_special_tokens({"bos_token": special[0], "eos_token": special[1] if len(special) > 1 else plain[0]})
    made.add_tokens([AddedToken(one, special=True, normalized=False) for one in special], special_tokens=True)
    made.add_tokens([AddedToken(one, special=False, normalized=False) for one in plain])
    return made


def published_chat(name: str) -> Chat:
    """Return the chat of a published template."""
    one = PUBLISHED[name]
    family = IMAGE_ARCHITECTURES[one.family] if one.family else TEXT_ARCHITECTURE
    return Chat(name, byte_tokenizer(one.special, one.plain), family, one.template, one.image)
