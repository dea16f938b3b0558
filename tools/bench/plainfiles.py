"""The other way to store small objects, to measure packs against: a file for each, by a writer that leaves nothing out.

One object: O_TMPFILE, write, an extended attribute that says whose it is, fsync, link into one of 4,096 folders, fsync of that
folder.  Each writer is a thread of its own (the calls release the interpreter), so that the file system can put what several of
them sync into one transaction of its journal, as it does for any program.  No index, no row, no checksum: only the files.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time

FOLDERS = 4096


class PlainFiles:
    def __init__(self, root: str) -> None:
        self._root = root
        for number in range(FOLDERS):
            os.makedirs(self._folder(number))
        self._next = 0
        self._lock = threading.Lock()

    def _folder(self, number: int) -> str:
        return os.path.join(self._root, f"{number:03x}")

    def put(self, number: int, data: bytes) -> None:
        """Durable when it returns."""
        digest = hashlib.md5(b"%d" % number).digest()
        path = self._folder(int.from_bytes(digest[:2], "big") >> 4)
        folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            descriptor = os.open(path, os.O_TMPFILE | os.O_RDWR, 0o644)
            try:
                os.write(descriptor, data)
                os.setxattr(descriptor, "user.bench", b"%d" % number)
                os.fsync(descriptor)
                os.link(f"/proc/self/fd/{descriptor}", digest.hex(), dst_dir_fd=folder, follow_symlinks=True)
            finally:
                os.close(descriptor)
            os.fsync(folder)
        finally:
            os.close(folder)

    def puts(self, writers: int, data: bytes, seconds: float) -> tuple[int, float, float]:
        """Number of puts, seconds, seconds of cpu (of the whole process)."""
        counts = [0] * writers
        failures: list[BaseException] = []
        until = time.perf_counter() + seconds

        def write(writer: int) -> None:
            try:
                while time.perf_counter() < until:
                    with self._lock:
                        self._next += 1
                        number = self._next
                    self.put(number, data)
                    counts[writer] += 1
            except OSError as error:
                failures.append(error)

        threads = [threading.Thread(target=write, args=(writer,)) for writer in range(writers)]
        begin, cpu = time.perf_counter(), time.process_time()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if failures:
            raise failures[0]
        return sum(counts), time.perf_counter() - begin, time.process_time() - cpu
