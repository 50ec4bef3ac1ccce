"""Where the executor and its callers find each other's words: the mailbox of a team, and a row of a table of steps.

A row is ROW int64: kernel address, argument-block address, how many threads may share the step, whether a barrier
follows, and how many parts the step is cut into. The mailbox is memory that all threads share, each int64 on a cache
line of its own:

    0 ticket    counts up twice a call: odd while the call is being written, even when it may be read
    1 arrived   threads at the barrier
    2 phase     counts barriers passed
    3 table     of the current call
    4 steps     rows of the table
    5 threads   team size of the current call
    8 + t       state of worker t: AWAKE or PARKED
    70 + t      what is left to thread t of the step: its first part << 32 | the one after its last
"""

from __future__ import annotations

LINE = 64  # bytes; a cache line on every processor of interest
MOST_THREADS = 62  # bits of the mask of parked workers
TICKET, ARRIVED, PHASE, TABLE, STEPS, THREADS, STATE, LEFT = (LINE * i for i in (0, 1, 2, 3, 4, 5, 8, 8 + MOST_THREADS))
MAILBOX_BYTES = LEFT + MOST_THREADS * LINE
AWAKE, PARKED = 0, 1
ROW = 5
ROW_BYTES = 8 * ROW
