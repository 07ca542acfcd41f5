"""Counts tokens: `python tokenizer_worker.py tokenizer.json < texts.json > counts.json`.

A program of its own, for any Python that has the `tokenizers` package: a runtime's environment does, ours
need not. Reads a JSON array of texts, writes one of numbers. Imports nothing of Footplate.
"""

import json
import sys

import tokenizers


def main() -> None:
    """Count, and end."""
    tokenizer = tokenizers.Tokenizer.from_file(sys.argv[1])
    tokenizer.no_truncation()
    tokenizer.no_padding()
    texts = json.load(sys.stdin)
    encoded = tokenizer.encode_batch_fast(texts, add_special_tokens=False)
    json.dump([len(each) for each in encoded], sys.stdout)


if __name__ == "__main__":
    main()
