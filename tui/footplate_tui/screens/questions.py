"""A page with a few lines at its bottom: news, what another key press confirms, a field to type in."""

from __future__ import annotations

from textual.content import Content
from textual.widget import Widget
from textual.widgets import Static

from footplate_tui.screens.page import Page
from footplate_tui.widgets.fields import LineField
from footplate_tui.widgets.status_line import KeyLine


class Questions(Page):
    """Says something about what is shown, and asks before it does what cannot be taken back."""

    def __init__(self, *keys: str) -> None:
        super().__init__()
        self.news: Content | str = ""
        """What is said instead of what is highlighted, until something else is."""
        self._asked: tuple[str, object] | None = None
        """What another press of the same key confirms."""
        self.about = Static(markup=False, classes="about")
        self.input = LineField()
        self.keys = KeyLine(*keys)

    def on_mount(self) -> None:
        self.input.display = False

    # What a screen says of itself.

    @property
    def body(self) -> Widget:
        """What has the keys when nothing is typed."""
        raise NotImplementedError

    def about_words(self, width: int) -> Content:
        """Say what is highlighted."""
        raise NotImplementedError

    def keys_now(self) -> tuple[str, ...]:
        """Give the keys that matter now."""
        return self.keys.keys

    def draw_about(self) -> None:
        """Say what is highlighted, or the news."""
        width = max(self.size.width - 4, 10)
        say(self.about, Content.assemble(self.news) if self.news else self.about_words(width))
        self.keys.keys = self.keys_now()

    # Saying and asking.

    def tell(self, words: Content | str) -> None:
        """Say something until another row is highlighted."""
        self.news = words
        if self.is_mounted:
            self.draw_about()

    def forget_question(self) -> None:
        """Confirm nothing any more, and say what the row says."""
        self._asked = None
        self.tell("")

    def forget_news(self) -> None:
        """Say no more what has come true meanwhile; a question stays, and what is typed."""
        if not self.has_question and not self.is_typing:
            self.news = ""

    @property
    def has_question(self) -> bool:
        """Whether something is to be confirmed."""
        return self._asked is not None

    def is_confirmed(self, key: str, about: object, question: str, does: str) -> bool:
        """Ask, and say whether it was asked already: the same key pressed twice does it."""
        if self._asked == (key, about):
            self.forget_question()
            return True
        self._asked = (key, about)
        self.tell(
            Content.assemble(
                f"{question}  ",
                (key, "bold $footer-key-foreground"),
                f" {does}, ",
                ("esc", "bold $footer-key-foreground"),
                " leaves it.",
            )
        )
        return False

    def ask(self, value: str, placeholder: str, words: Content | str = "") -> None:
        """Let something be typed; `on_input_submitted` has it."""
        self.input.placeholder = placeholder
        self.input.value = value
        self.input.cursor_position = len(value)
        self.input.display = True
        self.input.focus()
        self.tell(words)

    @property
    def is_typing(self) -> bool:
        """Whether something is being typed."""
        return self.input.display

    def leave_input(self) -> None:
        """Type no more."""
        self.input.display = False
        self.body.focus()
        self.tell("")

    def take_back(self) -> bool:
        """Take back the innermost thing; False when there is nothing to take back."""
        if self.is_typing:
            self.leave_input()
        elif self.has_question:
            self.forget_question()
        else:
            return False
        return True


def say(widget: Widget, words: Content) -> None:
    """Have a text say something, and painted only when it is something else."""
    if isinstance(widget, Static) and not (
        isinstance(widget.content, Content) and words.is_same(widget.content)
    ):
        widget.update(words)
