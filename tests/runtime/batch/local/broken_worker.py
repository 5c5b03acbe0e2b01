"""A scoring process that breaks: images that end with one of these words do to it what the word says.

`python -m tests.runtime.batch.local.broken_worker`, in place of `ortcam.batch.local.worker`.
"""

import os
import signal
import threading

from ortcam.batch.explaining import RowMaker
from ortcam.batch.local import worker
from ortcam.errors import ProviderError

WORDS = {
    b"crash": lambda: os.kill(os.getpid(), signal.SIGSEGV),
    b"exit": lambda: os._exit(3),
    b"hang": lambda: threading.Event().wait(),
    b"refuse": lambda: (_ for _ in ()).throw(ProviderError("this device is on fire")),
    b"mistake": lambda: 1 / 0,
}
_read = RowMaker.read


def read(self, content):
    for word, deed in WORDS.items():
        if content.endswith(word):
            deed()
    return _read(self, content)


RowMaker.read = read

if __name__ == "__main__":
    os._exit(worker.main())
