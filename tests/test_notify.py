"""People are told what happened: by mail and webhook for real, once for each thing, and never at the cost of a run."""

import subprocess
from pathlib import Path

import pytest

from flows.retraining import notify
from flows.retraining.notify import Event, and_tell, failure, tell
from models.common.errors import DataBlockedError, RegistryError, UserError
from tasks.channels import EVENTS, add_channel, channels
from tasks.project.registry import champion, register_and_assign
from tasks.run_outcome import RunOutcome
from tests.listening import mail_server, webhook
from tests.test_cli import ratchet
from tests.test_registry import candidates

pytestmark = pytest.mark.timeout(400)
PROMOTED = RunOutcome(
    "digits", "PROMOTED", ("accuracy 0.8 → 0.9",), version="v1.1.0", previous="v1.0.0", commit="c0ffee"
)


@pytest.fixture(autouse=True)
def _quick_and_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notify, "RETRIES", (0.01, 0.01))
    monkeypatch.delenv("RATCHET_NOTIFY", raising=False)


def test_a_rollback_is_told_by_mail_and_by_webhook_with_who_and_why(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for commit in candidates(project, 2):
        register_and_assign(project, "digits", commit, champion(project, "digits"))
    with webhook() as hook, mail_server() as mail:
        add_channel(project, "ops", hook.url, ["ROLLED_BACK"])
        add_channel(project, "chat", hook.url, ["PROMOTED"])
        monkeypatch.setenv("RATCHET_NOTIFY", mail.url)
        done = ratchet(project, "rollback", "digits", "--why", "sevens are read\nas ones")
        assert (done.returncode, done.stderr) == (0, "")
        assert hook.subjects == mail.subjects == ["digits: ROLLED BACK"]
        for _, body in (*hook.messages, *mail.messages):
            said = ["• sevens are read as ones", "By: Test <test@example.org>", "In production: v1.0.0 (was v1.1.0)"]
            assert body.replace("\r", "").splitlines()[:3] == said
            assert "ratchet history digits" in body


def test_one_thing_is_told_once_though_the_run_is_carried_out_again(project: Path) -> None:
    with webhook() as hook:
        add_channel(project, "ops", hook.url)
        for _ in range(2):
            assert and_tell(project, "digits", lambda: PROMOTED) is PROMOTED
        and_tell(project, "digits", lambda: RunOutcome("digits", "UNCHANGED", version="v1.1.0"))
        assert hook.subjects == ["digits: PROMOTED as v1.1.0"]
        tell(project, Event("WORKER_GONE", why=("its heartbeat stopped",)))
        assert hook.subjects[1:] == ["Ratchet: WORKER GONE"]


def test_a_failure_is_news_once_until_a_run_ends_otherwise(project: Path) -> None:
    def fail(attempt: int) -> RunOutcome:
        raise RegistryError(f"'origin' did not answer within {attempt} s at /tmp/digits@{attempt}")

    with webhook() as hook:
        add_channel(project, "ops", hook.url)
        for attempt in range(2):
            with pytest.raises(RegistryError):
                and_tell(project, "digits", lambda attempt=attempt: fail(attempt))  # type: ignore[misc]
        assert hook.subjects == ["digits: ERROR"]
        and_tell(project, "digits", lambda: RunOutcome("digits", "UNCHANGED"))
        with pytest.raises(RegistryError):
            and_tell(project, "digits", lambda: fail(3))
        tell(project, failure(project, "letters", RegistryError("'origin' did not answer")))
        for unreadable in (3, 3, 5):
            tell(project, failure(project, "letters", DataBlockedError(f"{unreadable} of 9 files cannot be read")))
        assert hook.subjects == ["digits: ERROR", "digits: ERROR", "letters: ERROR", *["letters: BLOCKED"] * 2]


def test_what_is_refused_is_sent_again_and_what_reached_one_channel_is_not_sent_there_twice(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with webhook() as good, webhook() as bad:
        add_channel(project, "good", good.url)
        add_channel(project, "bad", bad.url)
        good.refusals, bad.refusals = 2, 3
        for _ in range(2):
            and_tell(project, "digits", lambda: PROMOTED)
        assert "bad could not be told of PROMOTED" in capsys.readouterr().err
        assert good.subjects == bad.subjects == ["digits: PROMOTED as v1.1.0"]


def test_a_run_ends_the_same_though_nobody_can_be_told(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    add_channel(project, "gone", "json://user:hunter2@127.0.0.1:9/token")
    add_channel(project, "wrong", "nonsense")
    add_channel(project, "none", "")
    assert and_tell(project, "digits", lambda: PROMOTED) is PROMOTED
    (project / ".ratchet/notify.json").write_text("[]")
    assert and_tell(project, "digits", lambda: PROMOTED) is PROMOTED
    log = capsys.readouterr().err
    assert log.count(" could not be told of PROMOTED: ") == 3
    assert "nobody could be told of PROMOTED" in log
    assert "hunter2" not in log


def test_channels_are_kept_where_their_owner_alone_reads_them_and_shown_without_secrets(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RATCHET_NOTIFY", "mailto://me:hunter2@example.org")
    added = ratchet(project, "notify", "add", "ops", "slack://Tsecret01/Bsecret02/Csecret03/#a", "--only", "error,held")
    assert (added.returncode, "secret" in added.stdout) == (0, False), added.stderr
    assert (project / ".ratchet/notify.json").stat().st_mode & 0o777 == 0o600
    assert subprocess.run(["git", "status", "--porcelain"], cwd=project, capture_output=True, check=True).stdout == b""
    assert ratchet(project, "notify", "list").stdout.splitlines() == [
        "ops  slack:///…  ERROR, HELD",
        "RATCHET_NOTIFY-1  mailto://example.org/…  everything",
    ]
    assert [channel.wants("ERROR") for channel in channels(project)] == [True, True]
    assert ratchet(project, "notify", "remove", "ops", "--json").returncode == 0
    assert [channel.name for channel in channels(project)] == ["RATCHET_NOTIFY-1"]
    assert "hunter2" not in repr(channels(project))


def test_the_test_message_says_which_channel_is_not_reached(project: Path) -> None:
    with webhook() as hook:
        add_channel(project, "ops", hook.url)
        done = ratchet(project, "notify", "test", RATCHET_NOTIFY="nonsense://x")
        assert hook.subjects == ["Ratchet: a test"]
    assert (done.returncode, done.stdout.splitlines()[0]) == (1, "ops: sent")
    assert "Not reached: RATCHET_NOTIFY-1" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["add", "ops", "nonsense"], "no URL that Apprise knows"),
        (["add", "ops", "json://127.0.0.1", "--only", "PROMOTED,BORED"], "Unknown event 'BORED'. Events: PROMOTED"),
        (["add", "../ops", "json://127.0.0.1"], "A channel's name is made of letters"),
        (["remove", "ops"], "No channel 'ops' to remove"),
        (["test"], "Nobody is told anything yet"),
    ],
)
def test_a_wrong_channel_is_one_line(project: Path, arguments: list[str], message: str) -> None:
    done = ratchet(project, "notify", *arguments)
    assert (done.returncode, done.stderr.count("\n"), message in done.stderr) == (2, 1, True), done.stderr


def test_every_way_a_run_ends_is_an_event_that_can_be_told() -> None:
    from tasks.run_outcome import AWAITING_APPROVAL, STATES

    assert {*STATES.values(), AWAITING_APPROVAL, *notify.FAILURES, *notify.NEXT} <= set(EVENTS)
    with pytest.raises(UserError):
        add_channel(Path("/"), "a b", "json://127.0.0.1")
