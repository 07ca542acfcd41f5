"""Make a tiny Gemma 3 that reads pictures: `python tiny_vision_model.py TOKENIZER FOLDER`.

Its weights are random, its tokenizer is another model's with the marks of pictures added.
Runs in an environment with torch and transformers, not in ours.
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoTokenizer,
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    Gemma3TextConfig,
    SiglipVisionConfig,
)

BEGIN, END, PICTURE = "<start_of_image>", "<end_of_image>", "<image_soft_token>"
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{% for part in message.content %}"
    "{{ part.text if part.type == 'text' else '<start_of_image>' }}"
    "{% endfor %}"
    "<|im_end|>\n{% endfor %}<|im_start|>assistant\n"
)


def main(source: Path, folder: Path) -> None:
    """Write the model and its processor."""
    torch.manual_seed(1234)
    tokenizer: Any = AutoTokenizer.from_pretrained(source)
    tokenizer.add_special_tokens({"additional_special_tokens": [BEGIN, END, PICTURE]})
    tokenizer.chat_template = TEMPLATE
    begin, end, picture = tokenizer.convert_tokens_to_ids([BEGIN, END, PICTURE])
    names = {"boi_token": BEGIN, "eoi_token": END, "image_token": PICTURE}
    tokenizer.init_kwargs.update(names, extra_special_tokens=names)
    config = Gemma3Config(
        text_config=text_config(tokenizer),
        # 4 by 4 patches, of which the model sees 2 by 2.
        vision_config=SiglipVisionConfig(
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=2,
            image_size=56,
            patch_size=14,
            vision_use_head=False,
        ),
        mm_tokens_per_image=4,
        boi_token_index=begin,
        eoi_token_index=end,
        image_token_index=picture,
        eos_token_id=tokenizer.eos_token_id,
    )
    model = Gemma3ForConditionalGeneration(config)
    for name, weights in model.named_parameters():
        if name.endswith("mm_input_projection_weight"):
            # They are zero at first: no picture would matter.
            torch.nn.init.normal_(weights, std=0.5)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    write_processor(folder)


def text_config(tokenizer: Any) -> Gemma3TextConfig:
    """Describe the part that speaks."""
    return Gemma3TextConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=6,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=32,
        max_position_embeddings=2048,
        sliding_window=256,
        query_pre_attn_scalar=32,
        initializer_range=0.2,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def write_processor(folder: Path) -> None:
    """Describe how pictures become tensors."""
    pictures = {
        "image_processor_type": "Gemma3ImageProcessor",
        "processor_class": "Gemma3Processor",
        "do_convert_rgb": True,
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "do_pan_and_scan": False,
        "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3,
        "image_seq_length": 4,
        "resample": 2,
        "rescale_factor": 1 / 255,
        "size": {"height": 56, "width": 56},
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(pictures))
    (folder / "processor_config.json").write_text(
        json.dumps({"image_seq_length": 4, "processor_class": "Gemma3Processor"})
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
