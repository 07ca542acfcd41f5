"""Make the tiny embedding and reranking models anew: real architectures, random weights, the guide's words.

    PYTHONPATH=guide .cache/guide-venv/bin/python tests/data/make_tiny_models.py

Each is made twice of the same weights: a folder for vLLM and a GGUF file for llama.cpp. What an embedding
says is little more than which words a text has; what the reranker says is arbitrary. Both say the same
every time, on either runtime.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import export_gguf as exporter  # type: ignore[import-not-found]  # it lies in guide/
import torch
from transformers import Qwen3Config, Qwen3ForCausalLM, Qwen3ForSequenceClassification

HERE = Path(__file__).parent
TOKENIZER = HERE / "guide-hf"
SEED = 7
TYPE = "f16"
SHAPE: dict[str, Any] = {
    "vocab_size": 1536,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    # vLLM's CPU attention takes no heads smaller than 32.
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 32,
    "max_position_embeddings": 2048,
    "tie_word_embeddings": True,
    "initializer_range": 0.05,
    "bos_token_id": None,
    "eos_token_id": 1531,
    "pad_token_id": 1529,
}
WORD_DEVIATION = 0.5
"""Of the words' own vectors: so much more than the layers add that they decide what is alike."""
SCORE_DEVIATION = 0.5
PAIR_TEMPLATE = "{query}{document}"
"""How llama.cpp joins a query and a document: as vLLM does."""


def main() -> None:
    """Make all four."""
    torch.manual_seed(SEED)
    embedder = _with_own_words(Qwen3ForCausalLM(Qwen3Config(**SHAPE)))
    _save(embedder, HERE / "tiny-embed-hf")
    _describe_pooling(HERE / "tiny-embed-hf")
    _export(HERE / "tiny-embed-hf", HERE / "tiny-embed.gguf", "MEAN")

    torch.manual_seed(SEED)
    reranker = _with_own_words(Qwen3ForSequenceClassification(Qwen3Config(**SHAPE, num_labels=1)))
    with torch.no_grad():
        reranker.score.weight.normal_(0, SCORE_DEVIATION)
    _save(reranker, HERE / "tiny-rerank-hf")
    _export(HERE / "tiny-rerank-hf", HERE / "tiny-rerank.gguf", "RANK")


def _with_own_words(model: Any) -> Any:
    with torch.no_grad():
        model.get_input_embeddings().weight.normal_(0, WORD_DEVIATION)
    return model


def _save(model: Any, folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    model.float().save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(TOKENIZER / name, folder / name)


def _describe_pooling(folder: Path) -> None:
    """Say what makes vectors of it, as sentence-transformers does."""
    kinds = (("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize"))
    modules = [
        {"idx": number, "name": str(number), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for number, (path, kind) in enumerate(kinds)
    ]
    _write_json(folder / "modules.json", modules)
    pooling = {"word_embedding_dimension": SHAPE["hidden_size"], "pooling_mode_mean_tokens": True}
    (folder / "1_Pooling").mkdir()
    _write_json(folder / "1_Pooling" / "config.json", pooling)


def _export(folder: Path, file: Path, pooling: str) -> None:
    config = json.loads((folder / "config.json").read_text("utf-8"))
    exporter.NAME = f"Footplate's {file.stem}, for tests"
    writer = exporter.gguf.GGUFWriter(file, "qwen3")
    exporter._add_description(writer, config, TYPE)
    writer.add_pooling_type(exporter.gguf.PoolingType[pooling])
    _add_tokenizer(writer, folder, config)
    if pooling == "RANK":
        writer.add_classifier_output_labels(["yes", "no"])
        writer.add_chat_template([{"name": "rerank", "template": PAIR_TEMPLATE}])
    _add_tensors(writer, folder, config["num_hidden_layers"])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    print(f"{file}: {file.stat().st_size} bytes")


def _add_tokenizer(writer: Any, folder: Path, config: dict[str, Any]) -> None:
    vocabulary = exporter._vocabulary(json.loads((folder / "tokenizer.json").read_text("utf-8")), 1536)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types(vocabulary.types)
    writer.add_token_merges(vocabulary.merges)
    writer.add_eos_token_id(config["eos_token_id"])
    writer.add_pad_token_id(config["pad_token_id"])
    writer.add_add_bos_token(False)


def _add_tensors(writer: Any, folder: Path, layers: int) -> None:
    names = exporter.gguf.get_tensor_name_map(exporter.gguf.MODEL_ARCH.QWEN3, layers)
    for name, values in exporter.load_file(folder / "model.safetensors").items():
        if name == "score.weight":
            # llama.cpp has two labels and a softmax: beside a label of zero that is vLLM's sigmoid.
            labels = exporter.np.concatenate([values, exporter.np.zeros_like(values)])
            exporter._add_tensor(writer, "cls.output.weight", labels, TYPE)
        else:
            exporter._add_tensor(writer, names.get_name(name, try_suffixes=(".weight",)), values, TYPE)


def _write_json(file: Path, content: Any) -> None:
    file.write_text(json.dumps(content, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
