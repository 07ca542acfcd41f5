"""On which line of a TOML text each key stands.

For texts that `tomllib` has accepted: it reads just enough of the grammar to skip values, and
understands none of them.
"""

from collections.abc import Mapping, Sequence

Place = tuple[str | int, ...]
"""The way to a value: table names, keys, and numbers for the elements of arrays."""


def locate(text: str) -> dict[Place, int]:
    """Give the line (from 1) of every table, key and array element of a valid TOML text."""
    reader = _Reader(text)
    reader.read_document()
    return reader.lines


def line_of(lines: Mapping[Place, int], place: Sequence[str | int]) -> int:
    """Give the line of the place, or of the nearest table around it; 1 when there is none."""
    for length in range(len(place), 0, -1):
        line = lines.get(tuple(place[:length]))
        if line is not None:
            return line
    return 1


class _Reader:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.lines: dict[Place, int] = {}
        self._lengths: dict[Place, int] = {}
        """How many `[[tables]]` of each array have begun."""
        self._counted_to = 0
        self._line = 1

    def read_document(self) -> None:
        table: Place = ()
        while self._skip_blank():
            if self._next("[["):
                table = self._begin_array_table()
            elif self._next("["):
                table = self._note_table(self._read_key(), self._here())
                self._expect("]")
            else:
                self._read_pair(table)

    def _begin_array_table(self) -> Place:
        line = self._here()
        *parents, last = self._read_key()
        array = (*self._resolve(tuple(parents)), last)
        index = self._lengths.get(array, 0)
        self._lengths[array] = index + 1
        self._expect("]]")
        for length in range(1, len(array) + 1):
            self.lines.setdefault(array[:length], line)
        self.lines[*array, index] = line
        return (*array, index)

    def _note_table(self, names: Sequence[str], line: int) -> Place:
        place = self._resolve(tuple(names))
        for length in range(1, len(place) + 1):
            self.lines.setdefault(place[:length], line)
        # The header itself is a better answer than a sub-table that came before it.
        self.lines[place] = line
        return place

    def _resolve(self, names: tuple[str, ...]) -> Place:
        """Point into the last element of every array of tables on the way."""
        place: Place = ()
        for name in names:
            place = (*place, name)
            if place in self._lengths:
                place = (*place, self._lengths[place] - 1)
        return place

    def _read_pair(self, table: Place) -> None:
        line = self._here()
        place = table
        for name in self._read_key():
            place = (*place, name)
            self.lines.setdefault(place, line)
        self._expect("=")
        self._read_value(place)

    def _read_key(self) -> list[str]:
        names = []
        while True:
            self._skip_spaces()
            names.append(self._read_name())
            self._skip_spaces()
            if not self._next("."):
                return names

    def _read_name(self) -> str:
        start = self.at
        if self.text[start] in "\"'":
            self._skip_string()
            raw = self.text[start + 1 : self.at - 1]
            return raw if self.text[start] == "'" else _unescape(raw)
        while self.at < len(self.text) and (self.text[self.at].isalnum() or self.text[self.at] in "-_"):
            self.at += 1
        return self.text[start : self.at]

    def _read_value(self, place: Place) -> None:
        self._skip_spaces()
        character = self.text[self.at]
        if character in "\"'":
            self._skip_string()
        elif self._next("["):
            self._read_array(place)
        elif self._next("{"):
            self._read_inline_table(place)
        else:
            while self.at < len(self.text) and self.text[self.at] not in ",]}#\r\n":
                self.at += 1

    def _read_array(self, place: Place) -> None:
        index = 0
        while self._skip_blank() and not self._next("]"):
            element = (*place, index)
            self.lines[element] = self._here()
            self._read_value(element)
            self._skip_blank()
            self._next(",")
            index += 1

    def _read_inline_table(self, place: Place) -> None:
        while self._skip_blank() and not self._next("}"):
            self._read_pair(place)
            self._skip_blank()
            self._next(",")

    def _skip_string(self) -> None:
        quote = self.text[self.at]
        mark = quote * 3 if self.text.startswith(quote * 3, self.at) else quote
        self.at += len(mark)
        while not self.text.startswith(mark, self.at):
            self.at += 2 if self.text[self.at] == "\\" and quote == '"' else 1
        self.at += len(mark)
        # A multi-line string may end in up to two quotes of its own.
        while len(mark) == 3 and self.text.startswith(quote, self.at):
            self.at += 1

    def _skip_blank(self) -> bool:
        """Move to the next thing that is neither space, line end nor comment; False at the end."""
        while self.at < len(self.text):
            if self.text[self.at] == "#":
                end = self.text.find("\n", self.at)
                self.at = len(self.text) if end < 0 else end
            elif self.text[self.at] in " \t\r\n":
                self.at += 1
            else:
                return True
        return False

    def _skip_spaces(self) -> None:
        while self.at < len(self.text) and self.text[self.at] in " \t":
            self.at += 1

    def _next(self, mark: str) -> bool:
        if not self.text.startswith(mark, self.at):
            return False
        self.at += len(mark)
        return True

    def _expect(self, mark: str) -> None:
        self._skip_spaces()
        if not self._next(mark):
            raise ValueError(f"no valid TOML: expected {mark!r} on line {self._here()}")

    def _here(self) -> int:
        self._line += self.text.count("\n", self._counted_to, self.at)
        self._counted_to = self.at
        return self._line


def _unescape(raw: str) -> str:
    if "\\" not in raw:
        return raw
    import tomllib  # noqa: PLC0415  # only for the rare key with an escape in it

    return str(tomllib.loads(f'k = "{raw}"')["k"])
