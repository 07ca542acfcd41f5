"""`footplate keys` in a pipe, with a real daemon."""

import json
import time

import pytest

from footplate_daemon import wire
from footplate_tui.cli.keys import lines
from tests.cli.conftest import Shell


def listed(footplate: Shell) -> dict[str, wire.ApiKey]:
    keys = json.loads(footplate("keys", "list", "--json").stdout)["keys"]
    return {key["name"]: wire.ApiKey.model_validate(key) for key in keys}


def test_a_key_is_alone_on_stdout_and_never_seen_again(started: Shell) -> None:
    made = started("keys", "create", "laptop")

    secret = made.stdout.removesuffix("\n")
    assert made.returncode == 0
    assert secret.startswith("fp-")
    assert made.stderr == "The key laptop is not shown again: put it where it is needed now.\n"
    shown = [
        started("keys"),
        started("keys", "list"),
        started("keys", "--json"),
        started("logs", "-n", "1000"),
    ]
    assert all(each.returncode == 0 for each in shown)
    assert secret not in "".join(each.stdout + each.stderr for each in shown)
    assert secret[:9] in shown[0].stdout


def test_a_key_has_its_limits(started: Shell) -> None:
    made = started(
        "keys",
        "create",
        "narrow",
        "--expires",
        "30d",
        "--models",
        "guide, llamacpp/second",
        "--rpm",
        "60",
        "--json",
    )

    key = wire.NewApiKey.model_validate_json(made.stdout)
    assert made.stderr == ""
    assert key.expires_at is not None
    assert key.expires_at - key.created_at == 30 * 86400
    assert key.models == ("guide", "llamacpp/second")
    assert key.requests_per_minute == 60
    assert listed(started)["narrow"].model_dump() == key.model_dump(exclude={"secret"})


def test_a_key_is_revoked_by_name_by_prefix_or_by_itself(started: Shell) -> None:
    secrets = {name: started("keys", "create", name).stdout.strip() for name in ("one", "two", "three")}

    by_name = started("keys", "revoke", "one")
    by_prefix = started("keys", "revoke", secrets["two"][:9])
    by_itself = started("keys", "revoke", secrets["three"])
    again = started("keys", "revoke", secrets["three"])

    assert by_name.stdout == f"one ({secrets['one'][:9]}…) is revoked.\n"
    assert by_prefix.stdout == f"two ({secrets['two'][:9]}…) is revoked.\n"
    assert by_itself.stdout == f"three ({secrets['three'][:9]}…) is revoked.\n"
    assert (again.returncode, again.stdout) == (1, "")
    assert secrets["three"] not in again.stderr
    assert all(listed(started)[name].revoked_at for name in secrets)


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["create"], 2, "Missing argument 'NAME'"),
        (["create", "a b"], 1, "cannot be a key's name"),
        (["create", "x", "--expires", "5"], 2, "Write it like 12h, 30d or 365d."),
        (["create", "x", "--expires", "0d"], 2, "no lifetime"),
        (["create", "x", "--rpm", "0"], 2, "1<=x<=100000"),
        (["create", "x", "--models", "nope"], 1, 'There is no model "nope".'),
        (["create", "x", "--models", "llamacpp"], 1, "llamacpp is a runtime"),
        (["revoke", "nope"], 1, 'There is no key "nope" to revoke.'),
    ],
)
def test_what_cannot_be_is_refused_in_words(started: Shell, words: list[str], code: int, told: str) -> None:
    refused = started("keys", *words)

    assert (refused.returncode, refused.stdout) == (code, "")
    assert told in refused.stderr
    assert "x" not in listed(started)


def test_a_name_is_taken_until_its_key_is_revoked(started: Shell) -> None:
    first = started("keys", "create", "again")
    second = started("keys", "create", "again")
    started("keys", "revoke", "again")
    third = started("keys", "create", "again")

    assert [first.returncode, second.returncode, third.returncode] == [0, 1, 0]
    assert "hint: Take another name, or revoke it first: footplate keys revoke again" in second.stderr


def test_opening_to_others_without_a_key_is_a_mistake_that_check_finds(started: Shell) -> None:
    file = started.paths.config_dir / "open.toml"
    file.write_text('[gateway]\nlisten = "0.0.0.0:8000"\n')
    for key in listed(started).values():
        if key.revoked_at is None:
            started("keys", "revoke", key.name)

    without = started("config", "check", str(file))
    started("keys", "create", "first")
    with_key = started("config", "check", str(file))

    assert without.returncode == 1
    assert "line 2: gateway.listen: 0.0.0.0:8000 can be reached from other machines" in without.stdout
    assert with_key.returncode == 0


def test_keys_read_as_a_table_with_their_state() -> None:
    now = time.time()
    live = wire.ApiKey(name="laptop", prefix="fp-abcdef", created_at=now, last_used_at=now)
    expired = wire.ApiKey(name="short", prefix="fp-ghijkl", created_at=now - 9, expires_at=now)
    revoked = wire.ApiKey(
        name="ci",
        prefix="fp-mnopqr",
        created_at=now,
        revoked_at=now,
        models=("a", "b"),
        requests_per_minute=5,
    )

    head, *rows = lines([live, expired, revoked], now)

    assert head.split("  ")[0] == "NAME"
    assert [row.split()[:3] for row in rows] == [
        ["laptop", "fp-abcdef…", "live"],
        ["short", "fp-ghijkl…", "expired"],
        ["ci", "fp-mnopqr…", "revoked"],
    ]
    assert rows[0].endswith("all")
    assert rows[2].endswith("5           a, b")
    assert list(lines([], now)) == ["There are no keys. Make one: footplate keys create NAME"]
