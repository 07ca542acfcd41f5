"""llama.cpp's own HTTP server as a program: `python -m footplate_daemon.runtimes.embedded --model F.gguf …`.

A process of its own: loading a model holds the interpreter's lock from start to end. Imports nothing of
Footplate, to start quickly. Listens on loopback only; the API key comes in `FOOTPLATE_ENGINE_KEY`.
SIGTERM and SIGINT end it within about two seconds, whatever it is doing.
"""

import argparse
import os
import signal
import sys
import time

# Threads of llama.cpp that wait for each other sleep instead of burning a shared core (read by libgomp
# when it is loaded, so before xllamacpp).
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import xllamacpp

BIG_MODEL_BYTES = 256 * 1024**2
"""Below this one thread is faster: the threads' meetings cost more than the work."""
LONGEST_TEXT = 2048
"""Tokens of a text to embed or to rank, where no context is said."""
EMBEDDED_POOLINGS = ("none", "mean", "cls", "last")


def main() -> int:
    """Serve until told to stop; give the exit code."""
    # Python's own handler of SIGINT would run only after the load; the default ends us at once.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    options = _parse(sys.argv[1:])
    began = time.monotonic()
    _say(f"loading {options.model}")
    try:
        server = xllamacpp.Server(_parameters(options))
    except (RuntimeError, ValueError) as error:
        _say(f"load failed: {error}")
        return 1
    asked_to_stop = _pipe_of_signals()
    _say(f"serving {options.alias} on {server.listening_address} after {time.monotonic() - began:.2f} s")
    os.read(asked_to_stop, 1)
    _say("stopping")
    del server
    _say("stopped")
    return 0


def _pipe_of_signals() -> int:
    """Give a descriptor with a byte in it once we are told to stop.

    A handler that sets an event would not do: a signal just before the wait for it is lost.
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    return reader


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m footplate_daemon.runtimes.embedded", allow_abbrev=False)
    parser.add_argument("--model", required=True, help="a GGUF file")
    parser.add_argument("--port", type=int, required=True, help="on 127.0.0.1")
    parser.add_argument("--alias", required=True, help="the name under which the model is listed")
    parser.add_argument("--ctx", type=int, default=0, help="tokens for each slot; 0: the model's own")
    parser.add_argument("--parallel", type=int, default=1, help="slots: answers at the same time")
    parser.add_argument("--gpu-layers", type=int, help="layers on the GPU; default: as many as fit")
    parser.add_argument("--threads", type=int, help="default: 1 for small models, else the free cores")
    parser.add_argument("--batch", type=int, help="tokens of a prompt taken at once")
    parser.add_argument("--cache-type-k", metavar="TYPE", help="f16, q8_0, q4_0…")
    parser.add_argument("--cache-type-v", metavar="TYPE", help="f16, q8_0, q4_0…")
    parser.add_argument("--mmproj", help="the vision projector, a GGUF file")
    parser.add_argument("--chat-template", help="a Jinja template in place of the model's own")
    parser.add_argument("--embedding", action="store_true", help="serve embeddings")
    parser.add_argument("--pooling", choices=EMBEDDED_POOLINGS)
    parser.add_argument("--reranking", action="store_true", help="serve reranking")
    parser.add_argument("--metrics", action="store_true", help="serve /metrics")
    return parser.parse_args(arguments)


def _parameters(options: argparse.Namespace) -> xllamacpp.CommonParams:
    parameters = xllamacpp.CommonParams()
    parameters.model.path = options.model
    parameters.model_alias = {options.alias}
    parameters.hostnames = ["127.0.0.1"]
    parameters.port = options.port
    parameters.n_parallel = options.parallel
    # llama.cpp divides the context among the slots.
    parameters.n_ctx = options.ctx * options.parallel
    parameters.endpoint_metrics = options.metrics
    # Without pings a stop waits for the end of every open stream, up to 30 s.
    parameters.sse_ping_interval = 1
    if key := os.environ.get("FOOTPLATE_ENGINE_KEY"):
        parameters.api_keys = [key]
    if options.gpu_layers is not None:
        parameters.n_gpu_layers = options.gpu_layers
    if options.batch:
        parameters.n_batch = options.batch
    for name in ("cache_type_k", "cache_type_v"):
        if wanted := getattr(options, name):
            setattr(parameters, name, getattr(xllamacpp.ggml_type, f"GGML_TYPE_{wanted.upper()}"))
    if options.mmproj:
        parameters.mmproj.path = options.mmproj
    if options.chat_template:
        parameters.chat_template = options.chat_template
    _set_threads(parameters, options.threads or _thread_count(options.model))
    _set_pooling(parameters, options)
    return parameters


def _set_threads(parameters: xllamacpp.CommonParams, count: int) -> None:
    parameters.cpuparams.n_threads = count
    parameters.cpuparams_batch.n_threads = count


def _set_pooling(parameters: xllamacpp.CommonParams, options: argparse.Namespace) -> None:
    poolings = xllamacpp.llama_pooling_type
    parameters.embedding = options.embedding or options.reranking
    if parameters.embedding:
        # A text must fit into one physical batch, which is 512 tokens by default.
        parameters.n_batch = parameters.n_ubatch = options.batch or options.ctx or LONGEST_TEXT
    if options.reranking:
        parameters.pooling_type = poolings.LLAMA_POOLING_TYPE_RANK
    elif options.pooling:
        parameters.pooling_type = getattr(poolings, f"LLAMA_POOLING_TYPE_{options.pooling.upper()}")


def _thread_count(model: str) -> int:
    try:
        is_big = os.stat(model).st_size >= BIG_MODEL_BYTES  # noqa: PTH116 - pathlib costs 10 ms of the start
    except OSError:
        return 1
    return max(1, len(os.sched_getaffinity(0)) - 1) if is_big else 1


def _say(message: str) -> None:
    print(f"embedded: {message}", flush=True)  # noqa: T201 - its log is its stdout


if __name__ == "__main__":
    sys.exit(main())
