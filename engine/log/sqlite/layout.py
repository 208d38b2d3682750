"""Where events lie in the database, for all that looks for them: by chunks, in the order they came.

So many events of all sessions make a chunk, and the index has a chunk's events side by side: what many sessions write
at a time lands in a few pages of it, where an index by session alone has a page for each, written anew, and moved into
the database, for every event. Its price is that a session's events lie in as many places as there are chunks with some
of them; a second index has the first event of each.
"""

from __future__ import annotations

from typing import Final

__all__ = ["CHUNK", "CHUNK_OF", "CHUNK_WITH", "FIRST_UP_TO", "LAST_CHUNK", "OF_CHUNK", "TAIL"]

# Events; schema.sql has it, too. With 550 sessions of 30 events/s, the write-ahead log moved each 8 MiB, the slowest of
# a hundred commits takes 0.5 ms, for 2 ms by session alone. Half as many events: no difference.
CHUNK: Final = 8192

# The chunk of the row {id}. Its id is twice its number, and one more if it is the first of its life in its chunk.
CHUNK_OF: Final = f"{{id}} / {2 * CHUNK}"

# The first events of a life's chunks are looked for in events_first, by the last bit of their ids.
_FIRST: Final = "events INDEXED BY events_first WHERE life = {life} AND id & 1"

# The offset of the last such one of life {life} that is not behind {offset}, or 0.
FIRST_UP_TO: Final = f"coalesce((SELECT max(offset) FROM {_FIRST} AND offset <= {{offset}}), 0)"

# The chunk that has the event {offset} of life {life}, if there is one.
CHUNK_WITH: Final = f"""(
    SELECT {CHUNK_OF.format(id="id")} FROM {_FIRST} AND offset <= {{offset}} ORDER BY offset DESC LIMIT 1
)"""

# The last chunk that has events of the life of ``sessions AS s``.
LAST_CHUNK: Final = f"""(
    SELECT {CHUNK_OF.format(id="id")} FROM {_FIRST.format(life="s.life")} ORDER BY offset DESC LIMIT 1
)"""

# Where the log of that life ends.
TAIL: Final = f"""max(s.tail, coalesce((
    SELECT max(offset) FROM events INDEXED BY events_by_chunk
    WHERE life = s.life AND {CHUNK_OF.format(id="id")} = {LAST_CHUNK}
), 0))"""

# The events of a chunk's life, by the first of them: ``events AS f``, ``events AS e``.
OF_CHUNK: Final = f"""
events AS f INDEXED BY events_first CROSS JOIN events AS e INDEXED BY events_by_chunk
ON {CHUNK_OF.format(id="e.id")} = {CHUNK_OF.format(id="f.id")} AND e.life = f.life
"""
