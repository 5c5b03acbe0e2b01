"""A process that pretends to score: to the driver of a batch it is a scoring process, and its rows are all alike.

It takes so many seconds per image, which it sleeps, and no images are read. So a driver can be measured with more
processes than this machine has cores. Run by benchmarks.batch.engine in the place of `ortcam.batch.local.worker`.
"""

import os
import queue
import threading
import time
from typing import Final

import numpy as np

from ortcam.batch.items import Item
from ortcam.batch.local.messages import BrokenStreamError, Done, Finish, Ready, Sender, Setup, Task, Tasks, receive
from ortcam.batch.output.rows import Row

SECONDS: Final = "ORTCAM_BENCHMARK_SECONDS"  # the variable that says how many per image
_MOST: Final = 8  # images whose rows are sent in one message, as those that score do


def row(setup: Setup, item: Item) -> Row:
    """What a process that scores would send, but for its values."""
    return Row(
        id=item.id,
        path=item.path,
        target=1,
        label="cat",
        probability=0.5,
        map=np.full(setup.settings.map_shape, 0.5, np.float16),
        estimated_error=0.0,
        passes=0,
        seconds=0.01,
    )


def main() -> None:
    """Answer tasks until the driver ends."""
    answers = Sender(os.fdopen(os.dup(1), "wb", buffering=0))
    questions = os.fdopen(0, "rb", buffering=0, closefd=False)
    setup: Setup = receive(questions)
    tasks: queue.SimpleQueue[Task] = queue.SimpleQueue()

    def listen() -> None:
        try:
            while not isinstance(message := receive(questions), Finish):
                if isinstance(message, Tasks):
                    for task in message.tasks:
                        tasks.put(task)
        except BrokenStreamError:
            pass
        os._exit(0)

    threading.Thread(target=listen, daemon=True).start()
    answers.send(Ready())
    seconds = float(os.environ[SECONDS])
    while True:
        done = [tasks.get()]
        while len(done) < _MOST and not tasks.empty():
            done.append(tasks.get())
        time.sleep(seconds * len(done))
        answers.send(Done(tuple((task.number, (row(setup, task.item),)) for task in done)))


if __name__ == "__main__":
    main()
