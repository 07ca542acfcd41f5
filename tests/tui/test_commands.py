"""Every command once, and Footplate's own colours."""

from textual.color import Color

from footplate_tui.commands import COMMANDS
from footplate_tui.palette import CUBE_AND_GREYS, FIRST, nearest, nearest_16
from footplate_tui.theme import DARK, LIGHT, THEMES
from footplate_tui.widgets.status_line import BUSY_KEYS, IDLE_KEYS, compose_keys


def test_ids_and_keys_are_used_once() -> None:
    ids = [command.id for command in COMMANDS]
    keys = [(command.place, key) for command in COMMANDS for key in command.keys.split(",")]

    assert len(set(ids)) == len(ids)
    assert len(set(keys)) == len(keys)


def test_the_status_line_names_commands_that_exist() -> None:
    assert {*IDLE_KEYS, *BUSY_KEYS} <= {command.id for command in COMMANDS}


def test_the_status_line_never_cuts_a_word() -> None:
    words = {f"{command.shown} {command.word}" for command in COMMANDS}
    for width in range(120):
        line = str(compose_keys(COMMANDS, width))
        assert len(line) <= width
        assert all(part in words for part in line.split("   ") if part)


def test_our_themes_are_made_of_colours_of_the_palette() -> None:
    for theme in THEMES:
        named = [theme.primary, theme.secondary, theme.accent, theme.background, theme.surface, theme.panel]
        for value in [*named, *theme.variables.values()]:
            assert value
            assert Color.parse(value).rgb in CUBE_AND_GREYS


def test_a_colour_of_the_palette_is_its_own_nearest() -> None:
    assert nearest((95, 175, 255)) == 75
    assert nearest((28, 28, 28)) == 234
    assert all(nearest(rgb) >= FIRST for rgb in [(0, 0, 0), (1, 2, 3), (255, 255, 255)])


def test_in_sixteen_colours_states_keep_their_hue_and_words_their_contrast() -> None:
    for theme, hues in ((DARK, (10, 11, 9, 12)), (LIGHT, (2, 3, 1, 4))):
        named = [theme.success, theme.warning, theme.error, theme.primary]
        assert tuple(nearest_16(Color.parse(value or "").rgb) for value in named) == hues
        grounds = {nearest_16(Color.parse(value or "").rgb) for value in (theme.background, theme.panel)}
        words = (theme.foreground, theme.variables["muted"])
        assert not grounds & {nearest_16(Color.parse(value or "").rgb) for value in words}
