"""Turn a Hugging Face folder of a Qwen3 model into a GGUF file, with nothing but PyPI's `gguf`.

    python export_gguf.py FOLDER FILE [--type q8_0]

llama.cpp's own converter knows only published tokenizers; this one takes any byte-level BPE that splits
as Qwen 2 does.
"""

import argparse
import json
from argparse import RawDescriptionHelpFormatter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt
from gguf import GGMLQuantizationType, LlamaFileType, TokenType
from safetensors.numpy import load_file

NAME = "Footplate's guide"
LICENSE = "apache-2.0"
TYPES = {
    "f32": (GGMLQuantizationType.F32, LlamaFileType.ALL_F32),
    "f16": (GGMLQuantizationType.F16, LlamaFileType.MOSTLY_F16),
    "q8_0": (GGMLQuantizationType.Q8_0, LlamaFileType.MOSTLY_Q8_0),
}


@dataclass(frozen=True)
class Vocabulary:
    """The tokenizer as GGUF writes it down."""

    tokens: list[str]
    types: list[TokenType]
    merges: list[str]


def main() -> None:
    """Export by the command line's wishes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("file", type=Path)
    parser.add_argument("--type", choices=TYPES, default="q8_0")
    arguments = parser.parse_args()

    export(arguments.folder, arguments.file, arguments.type)
    print(f"{arguments.file}: {arguments.file.stat().st_size} bytes")


def export(folder: Path, file: Path, kind: str) -> None:
    """Write the folder's model, tokenizer and chat template to one file."""
    config = _read_json(folder / "config.json")
    writer = gguf.GGUFWriter(file, "qwen3")
    _add_description(writer, config, kind)
    _add_tokenizer(writer, folder, config)
    _add_tensors(writer, folder, config["num_hidden_layers"], kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_description(writer: gguf.GGUFWriter, config: dict[str, Any], kind: str) -> None:
    writer.add_type("model")
    writer.add_name(NAME)
    writer.add_license(LICENSE)
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(config["head_dim"])
    writer.add_value_length(config["head_dim"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
    writer.add_file_type(TYPES[kind][1])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)


def _add_tokenizer(writer: gguf.GGUFWriter, folder: Path, config: dict[str, Any]) -> None:
    vocabulary = _vocabulary(_read_json(folder / "tokenizer.json"), config["vocab_size"])
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types(vocabulary.types)
    writer.add_token_merges(vocabulary.merges)
    writer.add_eos_token_id(config["eos_token_id"])
    writer.add_pad_token_id(config["pad_token_id"])
    writer.add_add_bos_token(False)
    writer.add_chat_template((folder / "chat_template.jinja").read_text("utf-8"))


def _vocabulary(tokenizer: dict[str, Any], size: int) -> Vocabulary:
    tokens = [f"[PAD{number}]" for number in range(size)]
    types = [TokenType.UNUSED] * size
    for token, number in tokenizer["model"]["vocab"].items():
        tokens[number], types[number] = token, TokenType.NORMAL
    for added in tokenizer["added_tokens"]:
        tokens[added["id"]] = added["content"]
        types[added["id"]] = TokenType.CONTROL if added["special"] else TokenType.USER_DEFINED
    return Vocabulary(tokens, types, [" ".join(pair) for pair in tokenizer["model"]["merges"]])


def _add_tensors(writer: gguf.GGUFWriter, folder: Path, layers: int, kind: str) -> None:
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.QWEN3, layers)
    for name, values in load_file(folder / "model.safetensors").items():
        ours = names.get_name(name, try_suffixes=(".weight",))
        if ours is None:
            raise ValueError(f"GGUF has no name for {name}")
        _add_tensor(writer, ours, values.astype(np.float32), kind)


def _add_tensor(writer: gguf.GGUFWriter, name: str, values: npt.NDArray[np.float32], kind: str) -> None:
    """Quantize matrices only: a norm's vector is small, and every runtime wants it as f32."""
    if values.ndim == 1 or kind == "f32":
        writer.add_tensor(name, values)
    else:
        quantization = TYPES[kind][0]
        writer.add_tensor(name, gguf.quants.quantize(values, quantization), raw_dtype=quantization)


def _read_json(file: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(file.read_text("utf-8"))
    return content


if __name__ == "__main__":
    main()
