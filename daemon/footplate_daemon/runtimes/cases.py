"""What clients ask of every runtime, case by case: the words for a table of who cannot do what.

Each runtime says in `cannot` and `needs` where it differs. One suite holds all of them to it,
`docs/runtimes.md` is made from it (`runtimes.table`), and `footplate explain` shows it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class Case(StrEnum):
    """One thing that a client asks for, or does."""

    STREAMING = "Streaming"
    STOP = "Stop words"
    SEED = "Seed"
    SEVERAL = "Several answers"
    USAGE = "Token counts"
    CANCEL = "Cancelling"
    LONG_PROMPT = "Prompt too long"
    UNKNOWN_MODEL = "Unknown model"
    WRONG_TYPE = "Wrong parameter"
    REASONING = "Reasoning"
    REASONING_OFF = "Reasoning off"
    TOOLS = "Tools"
    JSON_SCHEMA = "JSON schema"
    IMAGES = "Images"
    TEXT_ONLY = "Image to a text model"
    EMBEDDINGS = "Embeddings"
    RERANKING = "Reranking"
    DEATH = "Engine dies"


PROMISES: Mapping[Case, str] = {
    Case.STREAMING: "the pieces of a stream join to the answer that comes in one piece",
    Case.STOP: "`stop` ends the answer before that text, and the text is left out",
    Case.SEED: "the same `seed` gives the same answer again, whatever the temperature",
    Case.SEVERAL: "`n` gives several answers to one question",
    Case.USAGE: "`usage` counts the tokens; in a stream with `stream_options.include_usage`",
    Case.CANCEL: "who hangs up ends the generation, and the engine is free again",
    Case.LONG_PROMPT: "400, and how to go on; never cut without a word",
    Case.UNKNOWN_MODEL: "404, and which models there are; nothing is loaded",
    Case.WRONG_TYPE: "400 with the name of the parameter, and what it should be",
    Case.REASONING: "apart from the answer, as `reasoning_content` and `reasoning`",
    Case.REASONING_OFF: '`reasoning = "off"` in a profile, or `reasoning_effort: "none"` in a request',
    Case.TOOLS: "`tools` are offered, and a call comes back as `tool_calls`, in a stream too",
    Case.JSON_SCHEMA: "`response_format` with a JSON schema, which the answer fits",
    Case.IMAGES: "`image_url` parts, to a model that reads images",
    Case.TEXT_ONLY: "400, and where a model with vision is found",
    Case.EMBEDDINGS: '`/v1/embeddings`, from a model with `capabilities = ["embedding"]`',
    Case.RERANKING: '`/v1/rerank`, from a model with `capabilities = ["rerank"]`',
    Case.DEATH: "a stream ends with an error, and the engine comes back",
}
"""What comes where a runtime says nothing else, in the order of the table."""


@dataclass(frozen=True)
class Need:
    """A case that works under a condition."""

    sentence: str
    """The condition, as it follows "needs": `the model's projector (mmproj)`."""
    options: tuple[str, ...] = ()
    """Of the command line; all of them, where the condition can be seen there."""
