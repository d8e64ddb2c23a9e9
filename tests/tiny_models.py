"""Random models of the families that can be exported, small enough to be made in a blink, with tokenizers to match."""

from __future__ import annotations

import json

TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
BOS_TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<start_of_turn>{{ m['role'] }}\n{{ m['content'] | trim }}<end_of_turn>\n"
    "{% endfor %}{% if add_generation_prompt %}<start_of_turn>assistant\n{% endif %}"
)
CORPUS = [
    "def construct(self): self.play(Create(Circle()))",
    "from manim import *\n\n\nclass Example(Scene):\n    pass",
]
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN2 = LLAMA3.replace("{1,3}", "")
TYPES = {
    "llama": "Llama", "mistral": "Mistral", "qwen2": "Qwen2", "qwen3": "Qwen3", "lfm2": "Lfm2",
    "gemma": "Gemma", "gemma2": "Gemma2", "gemma3": "Gemma3",
}  # fmt: skip
OWN = {
    "llama": {"rope_parameters": {"rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0,
                                  "high_freq_factor": 4.0, "original_max_position_embeddings": 64}},
    "mistral": {"sliding_window": None, "tie_word_embeddings": False},
    "qwen3": {"head_dim": 32},
    "lfm2": {"layer_types": ["conv", "full_attention"], "intermediate_size": 384, "block_multiple_of": 32},
    "gemma": {"head_dim": 64},
    "gemma2": {"head_dim": 64, "query_pre_attn_scalar": 64, "sliding_window": 32},
    "gemma3": {"head_dim": 64, "query_pre_attn_scalar": 64, "sliding_window": 32, "num_hidden_layers": 6},
}  # fmt: skip


def byte_tokenizer(pattern=None, whole=False):
    """Byte-level BPE, cut by GPT-2's pattern or by another."""
    from tokenizers import Regex, Tokenizer, decoders, pre_tokenizers, trainers
    from tokenizers.models import BPE
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(BPE())
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=pattern is None)
    split = [] if pattern is None else [pre_tokenizers.Split(Regex(pattern), "isolated")]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*split, level]) if split else level
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.model.ignore_merges = whole
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    fast.chat_template = TEMPLATE
    return fast


def piece_tokenizer():
    """Pieces with bytes to fall back on, as Gemma has them: no space before the text, and a begin token."""
    from tokenizers import Regex, Tokenizer, decoders, normalizers, pre_tokenizers, trainers
    from tokenizers.models import BPE
    from transformers import PreTrainedTokenizerFast

    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>"]
    tokenizer = Tokenizer(BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("(?<=[a-z(.:])(?=▁)|\n"), "isolated")
    trainer = trainers.BpeTrainer(
        vocab_size=420, special_tokens=[*special, *(f"<0x{value:02X}>" for value in range(256))], show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    data = json.loads(tokenizer.to_str())
    data["added_tokens"] = [entry for entry in data["added_tokens"] if entry["content"] in special]
    fast = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(data)),
        bos_token="<bos>", eos_token="<end_of_turn>", pad_token="<pad>", unk_token="<unk>",
    )  # fmt: skip
    fast.chat_template = BOS_TEMPLATE
    return fast


def tokenizer_for(kind):
    if kind.startswith("gemma"):
        return piece_tokenizer()
    return byte_tokenizer(
        {"llama": LLAMA3, "lfm2": LLAMA3, "qwen2": QWEN2, "qwen3": QWEN2}.get(kind), kind in ("llama", "lfm2")
    )


def save_model(folder, kind, **changes):
    """A model with random weights, its tokenizer and its generation config, in `folder`."""
    import torch
    import transformers

    tokenizer = tokenizer_for(kind)
    name = TYPES[kind]
    config = getattr(transformers, f"{name}TextConfig" if kind == "gemma3" else f"{name}Config")
    settings = {
        "vocab_size": len(tokenizer) + 5,  # rows that no token uses, as many models have them
        "hidden_size": 256,
        "intermediate_size": 512,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.pad_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "tie_word_embeddings": True,
    }
    torch.manual_seed(0)
    model = getattr(transformers, f"{name}ForCausalLM")(config(**settings | OWN.get(kind, {}) | changes))
    for weight_name, weight in model.named_parameters():
        if "norm" in weight_name or weight_name.endswith("bias"):
            torch.nn.init.normal_(weight, mean=0.0 if kind.startswith("gemma") else 1.0, std=0.1)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
