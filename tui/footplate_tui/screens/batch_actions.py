"""What can be done with batches, wherever they are shown: submit, cancel, retry what failed, save results."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from textual import work
from textual.content import Content

from footplate_daemon import errors
from footplate_daemon.wire_batches import BatchProgress, BatchWish
from footplate_tui.batch_files import Submission, beside, look_at, results_name
from footplate_tui.batch_lines import name_of, sent
from footplate_tui.enclosing import is_file, typed_path
from footplate_tui.format import count
from footplate_tui.harmless import one_line
from footplate_tui.screens.page import told
from footplate_tui.screens.questions import Questions


class BatchActions(Questions):
    """Does it with the batch that the screen names."""

    _saves: BatchProgress | None = None
    """The batch whose results are to be written, while a path is typed."""
    _replaces = ""
    """The file that another Enter replaces."""

    def chosen_batch(self) -> BatchProgress | None:
        """Give the batch that is meant."""
        raise NotImplementedError

    def tell_error(self, error: errors.FootplateError) -> None:
        """Say what went wrong and what to do."""
        self.tell(Content.styled(told(error), "$error"))

    # Cancel and retry.

    def on_cancel_batch_wanted(self) -> None:
        chosen = self.chosen_batch()
        if chosen is None:
            return
        if chosen.batch.status.is_final:
            self.tell("It has ended.")
        elif self.is_confirmed(
            "c", chosen.batch.id, f"Cancel {name_of(chosen)}? What was answered is kept.", "cancels it"
        ):
            self.cancel(chosen)

    @work(group="cancel")
    async def cancel(self, progress: BatchProgress) -> None:
        """End a batch; lines that are being asked are still answered."""
        daemon = await self.footplate.daemon()
        try:
            await daemon.cancel_batch(progress.batch.id)
        except errors.FootplateError as error:
            self.tell_error(error)
        else:
            self.tell(f"{name_of(progress)} is being cancelled.")

    def on_retry_failed_wanted(self) -> None:
        chosen = self.chosen_batch()
        if chosen is None:
            return
        failed = chosen.batch.request_counts.failed
        if not chosen.batch.status.is_final:
            self.tell("It goes on; what failed can be asked again when it has ended.")
        elif not failed:
            self.tell("No line failed.")
        else:
            self.retry(chosen)

    @work(group="retry", exclusive=True)
    async def retry(self, progress: BatchProgress) -> None:
        """Begin a new batch of the lines that failed."""
        daemon = await self.footplate.daemon()
        try:
            begun = await daemon.retry_failed_batch(progress.batch.id)
        except errors.FootplateError as error:
            self.tell_error(error)
            return
        failed = count(progress.batch.request_counts.failed, "line")
        self.tell(f"{failed} begin anew as {one_line(begun.id)}.")
        self.show_begun(begun.id)

    # Submit.

    @work(group="submit", exclusive=True)
    async def submit(self, path: Path) -> None:
        """Send a file and begin a batch of it; what its lines ask for says which endpoint."""
        daemon = await self.footplate.daemon()
        self.tell(f"Looking at {one_line(path.name)}…")
        try:
            found = await asyncio.to_thread(look_at, path)
            self.tell(sent(path.name, 0, found.byte_count))
            uploaded = await daemon.upload_file(path, told=lambda done: self._tell_sent(found, done))
            begun = await daemon.create_batch(BatchWish(input_file_id=uploaded.id, endpoint=found.endpoint))
        except errors.FootplateError as error:
            self.tell_error(error)
        else:
            self.forget_question()
            self.show_begun(begun.id)

    def show_begun(self, batch_id: str) -> None:
        """Bring a batch into sight that was begun here."""

    def _tell_sent(self, found: Submission, done: int) -> None:
        words = sent(found.path.name, done, found.byte_count)
        if words != self.news:
            self.tell(words)

    # Save.

    def on_save_results_wanted(self) -> None:
        chosen = self.chosen_batch()
        if chosen is None:
            return
        if not (chosen.batch.output_file_id or chosen.batch.error_file_id):
            is_over = chosen.batch.status.is_final
            self.tell(
                "Nothing was answered." if is_over else "Its results are a file as soon as it has ended."
            )
            return
        self._saves, self._replaces = chosen, ""
        name = results_name(chosen.input_filename or "", lambda name: Path(name).exists())
        where = Content.assemble(("Save to ", "bold"), (f"{Path.cwd()}/", "$muted"))
        self.ask(name, "a file on this machine", where)

    def on_input_submitted(self) -> None:
        saved, text = self._saves, self.input.value.strip()
        if saved is not None and text:
            self.save(saved, typed_path(text))

    @work(group="save", exclusive=True)
    async def save(self, progress: BatchProgress, path: Path) -> None:
        """Write answers, and beside them errors; a file that is there is replaced when asked twice."""
        if self._replaces != str(path) and await asyncio.to_thread(is_file, path):
            self._replaces = str(path)
            self.tell(Content.styled(f"{path} is there already. ⏎ again replaces it.", "$warning"))
            return
        daemon = await self.footplate.daemon()
        batch, written = progress.batch, []
        wanted = [(batch.output_file_id, path)]
        wanted.append((batch.error_file_id, beside(path) if batch.output_file_id else path))
        try:
            for file_id, file in wanted:
                if file_id is not None:
                    await _write(daemon.file_content(file_id), file)
                    written.append(str(Path.cwd() / file))
        except errors.FootplateError as error:
            self.tell_error(error)
            return
        except OSError as error:
            self.tell(Content.styled(f"✗ {path}: {error.strerror}.", "$error"))
            return
        self._saves = None
        self.leave_input()
        self.tell(f"Written: {', '.join(written)}")


async def _write(pieces: AsyncIterator[bytes], path: Path) -> None:
    """Write a file piece by piece; what was there stays until all has come."""
    part = path.with_name(f"{path.name}.part")
    try:
        with await asyncio.to_thread(part.open, "wb") as file:
            async for piece in pieces:
                await asyncio.to_thread(file.write, piece)
        await asyncio.to_thread(part.replace, path)
    finally:
        with contextlib.suppress(OSError):
            await asyncio.to_thread(part.unlink, missing_ok=True)
