"""The tokenizer of the model that `make run` serves, in the format of `transformers`."""

import os
from pathlib import Path

from gguf import GGUFReader
from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from transformers import PreTrainedTokenizerFast

_CONTROL_TOKEN = 3


def write_tokenizer(folder: Path) -> Path:
    """Write the vocabulary in the model's file to `folder`, as a model hub would deliver it."""
    fields = GGUFReader(os.environ["MODEL_FILE"]).fields
    value = {
        name.rpartition(".")[2]: fields[name].contents() for name in fields if "tokenizer" in name
    }
    tokens = value["tokens"]
    pairs = [tuple(merge.split(" ")) for merge in value["merges"]]
    tokenizer = Tokenizer(BPE(vocab={token: n for n, token in enumerate(tokens)}, merges=pairs))
    digits = pre_tokenizers.Digits(individual_digits=True)
    bytes_ = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, bytes_])
    tokenizer.decoder = decoders.ByteLevel()
    control = [
        token
        for token, kind in zip(tokens, value["token_type"], strict=True)
        if kind == _CONTROL_TOKEN
    ]
    tokenizer.add_special_tokens([AddedToken(each, normalized=False) for each in control])
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=tokens[value["bos_token_id"]],
        eos_token=tokens[value["eos_token_id"]],
        chat_template=value["chat_template"],
    ).save_pretrained(folder)
    return folder
