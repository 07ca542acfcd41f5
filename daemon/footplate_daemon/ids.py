"""Names for what has none."""

import random
import time


def new_request_id() -> str:
    """Give the id of a request that came without one: its time in ms, then 80 random bits.

    Ids that grow are entered at the end of the database's index, not all over it.
    """
    return f"req-{int(time.time() * 1000):012x}{random.getrandbits(80):020x}"
