"""Train the guide: its tokenizer and its weights, from `questions.toml`.

    python train.py FOLDER

writes a Hugging Face folder. Seeded: the same machine and the same versions give the same weights.
Every sample is a chat of one or several turns, with or without a system prompt, drawn anew for each step;
the loss counts what the guide says, never what it is asked.
"""

import argparse
import json
import math
import random
import time
from argparse import RawDescriptionHelpFormatter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from phrasing import strange, vary
from questions import TOOLS, Questions, load, normal
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from torch.nn.functional import cross_entropy
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

TEMPLATE = Path(__file__).with_name("template.jinja")
END_OF_TEXT, END_OF_TURN = "<|endoftext|>", "<|im_end|>"
CONTROL_TOKENS = (END_OF_TEXT, "<|im_start|>", END_OF_TURN)
PLAIN_TOKENS = ("<think>", "</think>", "<tool_call>", "</tool_call>")
"""Tokens that stay visible in the text, for the runtimes' parsers."""
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""Qwen 2's: llama.cpp knows it by name."""
CONTEXT = 4096
IGNORED = -100
"""The label of a token that the loss does not count."""


@dataclass(frozen=True)
class Recipe:
    """The size of the model and how long it learns."""

    vocabulary: int = 1536
    hidden: int = 128
    layers: int = 3
    heads: int = 4
    feed_forward: int = 256
    steps: int = 3500
    batch: int = 32
    peak_rate: float = 3e-3
    seed: int = 1


@dataclass
class Sample:
    """One chat as tokens, and which of them to learn."""

    tokens: list[int] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)

    def add(self, tokens: list[int], *, learn: bool) -> None:
        """Append tokens, to be learned or only read."""
        self.tokens.extend(tokens)
        self.labels.extend(tokens if learn else [IGNORED] * len(tokens))


def main() -> None:
    """Train by the command line's wishes and write the folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=Recipe.steps)
    arguments = parser.parse_args()

    recipe = Recipe(steps=arguments.steps)
    questions = load()
    torch.manual_seed(recipe.seed)
    torch.set_num_threads(1)
    tokenizer = train_tokenizer(questions, recipe)
    model = new_model(recipe, tokenizer)
    print(f"{model.num_parameters()} parameters, {len(questions.known)} answers", flush=True)
    learn(model, tokenizer, questions, recipe)
    save(model, tokenizer, arguments.folder)


def train_tokenizer(questions: Questions, recipe: Recipe) -> PreTrainedTokenizerFast:
    """Return a byte-level BPE tokenizer that is good at the guide's own words."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=recipe.vocabulary - len(CONTROL_TOKENS) - len(PLAIN_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_texts(questions), trainer)
    tokenizer.add_special_tokens(
        [AddedToken(token, special=True, normalized=False) for token in CONTROL_TOKENS]
    )
    tokenizer.add_tokens([AddedToken(token, special=False, normalized=False) for token in PLAIN_TOKENS])
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]  # as transformers ships it
        tokenizer_object=tokenizer,
        eos_token=END_OF_TURN,
        pad_token=END_OF_TEXT,
        clean_up_tokenization_spaces=False,
        model_max_length=CONTEXT,
        chat_template=TEMPLATE.read_text("utf-8"),
    )


def new_model(recipe: Recipe, tokenizer: PreTrainedTokenizerFast) -> Qwen3ForCausalLM:
    """Return a model that knows nothing yet."""
    return Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=recipe.vocabulary,
            hidden_size=recipe.hidden,
            intermediate_size=recipe.feed_forward,
            num_hidden_layers=recipe.layers,
            num_attention_heads=recipe.heads,
            num_key_value_heads=recipe.heads // 2,
            head_dim=64,
            max_position_embeddings=CONTEXT,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            initializer_range=0.04,
        )
    )


def learn(
    model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, questions: Questions, recipe: Recipe
) -> None:
    """Train in place, saying now and then how well it goes."""
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=recipe.peak_rate, betas=(0.9, 0.98), weight_decay=0.05
    )
    batches = Chats(questions, tokenizer, random.Random(recipe.seed)).batches(recipe.batch)
    model.train()
    for step in range(1, recipe.steps + 1):
        for group in optimizer.param_groups:
            group["lr"] = recipe.peak_rate * _warm_up_and_cool_down(step, recipe.steps)
        loss = _loss(model, next(batches))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # as torch ships it
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % 100 == 0:
            print(f"step {step} loss {loss.item():.4f} cpu {time.process_time():.0f} s", flush=True)


def save(model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write the folder so that transformers 4 and 5, vLLM and our exporter read it alike.

    The weights are stored as f16, which halves the file, and computed as f32, which is exact everywhere.
    """
    folder.mkdir(parents=True, exist_ok=True)
    model.half().save_pretrained(folder)  # type: ignore[no-untyped-call]  # as transformers ships it
    tokenizer.save_pretrained(folder)
    _edit_json(folder / "config.json", dtype="float32")
    _edit_json(folder / "tokenizer_config.json", tokenizer_class="PreTrainedTokenizerFast")


class Chats:
    """An endless supply of chats to learn from."""

    def __init__(
        self, questions: Questions, tokenizer: PreTrainedTokenizerFast, chance: random.Random
    ) -> None:
        self._questions = questions
        self._held_out = {normal(text) for entry in questions.entries() for text in entry.held_out}
        self._tokenizer = tokenizer
        self._chance = chance

    def batches(self, size: int) -> Iterator[list[Sample]]:
        """Yield batches of chats of about the same length, so that little is wasted on padding."""
        while True:
            pool = sorted((self._sample() for _ in range(size * 16)), key=lambda sample: len(sample.tokens))
            batches = [pool[start : start + size] for start in range(0, len(pool), size)]
            self._chance.shuffle(batches)
            yield from batches

    def _sample(self) -> Sample:
        with_tools = self._chance.random() < 0.05
        turns = self._chance.choices((1, 2, 3, 4, 8), (60, 24, 9, 5, 2))[0]
        messages: list[dict[str, str]] = []
        sample = Sample()
        text = ""
        if self._chance.random() < 0.3:
            messages.append({"role": "system", "content": self._system()})
        for _ in range(turns):
            if messages and messages[-1]["content"].startswith("<tool_call>"):
                asked, spoken = self._tool_answer(), self._questions.after_tool
            else:
                asked, spoken = self._exchange(with_tools)
            is_ours = self._chance.random() > 0.05
            if not is_ours:
                spoken = self._foreign_answer(spoken)
            messages.append(asked)
            prompt = self._render(messages, with_tools)
            sample.add(self._encode(prompt.removeprefix(text)), learn=False)
            sample.add(self._encode(spoken + END_OF_TURN), learn=is_ours)
            messages.append({"role": "assistant", "content": spoken})
            text = prompt + spoken + END_OF_TURN
        return sample

    def _exchange(self, with_tools: bool) -> tuple[dict[str, str], str]:
        """Return a question and what the guide says to it; never a held-out question, not even by chance."""
        while True:
            question, spoken = self._any_exchange(with_tools)
            if normal(question) not in self._held_out:
                return {"role": "user", "content": question}, spoken

    def _any_exchange(self, with_tools: bool) -> tuple[str, str]:
        if self._chance.random() < 0.3:
            return strange(self._questions, self._chance), self._questions.unknown.answer
        known = self._questions.known
        if with_tools and self._chance.random() < 0.5:
            known = tuple(entry for entry in known if entry.tool)
        entry = self._chance.choice(known)
        return vary(self._chance.choice(entry.ask), self._chance), entry.spoken(with_tools=with_tools)

    def _tool_answer(self) -> dict[str, str]:
        words = self._chance.choices(self._questions.words, k=self._chance.randint(1, 6))
        return {"role": "tool", "content": json.dumps({"state": " ".join(words)})}

    def _foreign_answer(self, spoken: str) -> str:
        """Return what may also stand in a chat: an answer that was stopped, or one of another model."""
        if self._chance.random() < 0.5:
            return spoken[: self._chance.randrange(len(spoken))]
        return " ".join(self._chance.choices(self._questions.words, k=self._chance.randint(1, 40)))

    def _system(self) -> str:
        """Return a system prompt, now and then one of words without meaning."""
        if self._chance.random() < 0.7:
            return self._chance.choice(self._questions.systems)
        return " ".join(self._chance.choices(self._questions.words, k=self._chance.randint(2, 15)))

    def _render(self, messages: list[dict[str, str]], with_tools: bool) -> str:
        rendered = self._tokenizer.apply_chat_template(
            messages, tools=_tools(with_tools), tokenize=False, add_generation_prompt=True
        )
        return str(rendered)

    def _encode(self, text: str) -> list[int]:
        return list(self._tokenizer(text, add_special_tokens=False).input_ids)


def _tools(with_tools: bool) -> Any:
    return TOOLS if with_tools else None


def _texts(questions: Questions) -> Iterator[str]:
    """Yield what the tokenizer should be good at."""
    for entry in questions.known:
        yield entry.spoken()
        yield entry.spoken(with_tools=True)
        for question in entry.ask:
            yield from (question, question.lower())
    yield questions.unknown.answer
    yield from questions.systems
    yield json.dumps(TOOLS)


def _loss(model: Qwen3ForCausalLM, batch: list[Sample]) -> torch.Tensor:
    """Return the loss over what the guide says; only those positions reach the vocabulary."""
    width = max(len(sample.tokens) for sample in batch)
    tokens = torch.tensor([sample.tokens + [0] * (width - len(sample.tokens)) for sample in batch])
    labels = torch.tensor(
        [sample.labels[1:] + [IGNORED] * (width - len(sample.labels) + 1) for sample in batch]
    )
    hidden = model.model(input_ids=tokens).last_hidden_state
    learned = labels != IGNORED
    return cross_entropy(model.lm_head(hidden[learned]), labels[learned])


def _warm_up_and_cool_down(step: int, steps: int) -> float:
    return min(1.0, step / 50) * (0.51 + 0.49 * math.cos(math.pi * step / steps))


def _edit_json(file: Path, **changes: Any) -> None:
    content = json.loads(file.read_text("utf-8")) | changes
    file.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", "utf-8")


if __name__ == "__main__":
    main()
