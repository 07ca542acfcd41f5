"""The OpenAI-compatible face: routing, the queue, the hot path, the ledger."""
