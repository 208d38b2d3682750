"""Tokens, tickets and the rule, without a server."""

from __future__ import annotations

import base64
import json
import logging
import time
from fnmatch import fnmatchcase
from hmac import digest
from math import inf
from pathlib import Path

import jwt
import pytest
import trio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from hypothesis import example, given
from hypothesis import strategies as st

from penstock.adapters.access import (
    EVERYBODY,
    Algorithm,
    BadKey,
    Identity,
    JwtTokens,
    Principal,
    Scope,
    Tickets,
    covers,
    is_pattern,
    load_key,
    load_signer,
    make_token,
    may,
    read_bearer,
)
from penstock.adapters.problems import Forbidden, Unauthenticated, answer
from penstock.engine import InvalidBody, Overloaded, StorageError
from tests.adapters.credentials import SECRET, token

TOKENS = JwtTokens([SECRET], "HS256", leeway=0)


def principal(*sessions: str, scopes: tuple[Scope, ...] = ("read", "write"), expires_at: float = inf) -> Principal:
    return Principal(subject="ann", scopes=frozenset(scopes), sessions=sessions, expires_at=expires_at)


# --- the rule


@pytest.mark.parametrize(
    ("sessions", "session_id", "allowed"),
    [
        (("a",), "a", True),
        (("a",), "A", False),
        (("a",), "ab", False),
        (("a*",), "a", True),
        (("a*",), "abc", True),
        (("a*",), "ba", False),
        (("*-x",), "tenant-x", True),
        (("a*c",), "abbc", True),
        (("b", "a"), "a", True),
        ((), "a", False),
        (("",), "", True),
        (("*",), "anything~at.all:here", True),
    ],
)
def test_a_principal_may_what_its_patterns_match(sessions: tuple[str, ...], session_id: str, allowed: bool) -> None:
    assert may(principal(*sessions), "read", session_id) is allowed


def test_only_admin_is_more_than_itself_and_only_on_its_own_sessions() -> None:
    for scope in ("read", "write", "produce", "admin"):
        for other in ("read", "write", "produce", "admin"):
            assert may(principal("a", scopes=(scope,)), other, "a") is (scope in (other, "admin"))
    assert not may(principal("a", scopes=("admin",)), "read", "b")


def test_the_server_as_a_whole_takes_a_right_to_every_session() -> None:
    assert may(principal("*", scopes=("admin",)), "admin", None)
    assert not may(principal("a*", "b*", scopes=("admin",)), "admin", None)


@pytest.mark.parametrize("text", ["", "a?", "[ab]*", "[!a]", "a/b", "a b", "ä", "a\n", "*" * 129, "a,b"])
def test_a_star_is_the_only_wildcard(text: str) -> None:
    assert not is_pattern(text)


patterns = st.text(alphabet="ab-*", min_size=1, max_size=6)
ids = st.text(alphabet="ab-", min_size=1, max_size=8)


@given(patterns, patterns, ids)
@example("a", "*", "b")
@example("a*", "a**", "ab")
def test_a_pattern_that_is_covered_matches_nothing_more(own: str, asked: str, session_id: str) -> None:
    if covers([own], asked) and fnmatchcase(session_id, asked):
        assert fnmatchcase(session_id, own)


@given(patterns, ids)
@example("a*a", "a")
@example("ab*ba", "aba")
@example("*ab*ab*", "abab")
def test_a_star_is_any_characters_and_all_else_is_itself(pattern: str, session_id: str) -> None:
    assert covers([pattern], session_id) is fnmatchcase(session_id, pattern)


@pytest.mark.parametrize(("own", "asked"), [("a*", "a*"), ("*", "a*"), ("a*", "ab*"), ("a*", "a"), ("*-x", "t-*-x")])
def test_what_is_narrower_is_covered(own: str, asked: str) -> None:
    assert covers([own], asked)


# --- tokens


def test_a_token_says_who_asks_what_for_and_until_when() -> None:
    now = int(time.time())
    read = TOKENS(token(["a", "b-*"], ["read", "openid"], subject="Ann Ä", exp=now + 60))
    assert (read.subject, read.scopes, read.sessions) == ("Ann Ä", frozenset({"read"}), ("a", "b-*"))
    assert read.expires_at == now + 60


#
def test_scope_is_words_and_absent_claims_give_nothing() -> None:
    made = jwt.encode({"sub": "ann", "scope": "read write", "exp": time.time() + 9}, SECRET, "HS256")
    read = TOKENS(made)
    assert (read.scopes, read.sessions) == (frozenset({"read", "write"}), ())
    assert not may(read, "read", "a")


def _unsigned(header: dict[str, object]) -> str:
    def part(value: object) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    return f"{part(header)}.{part({'sub': 'ann', 'exp': time.time() + 99, 'scopes': ['admin'], 'sessions': ['*']})}."


GOOD = token()
HEAD, BODY, SIGNATURE = GOOD.split(".")
DEEP = base64.urlsafe_b64encode(b"[" * 6000).rstrip(b"=").decode()

BAD_TOKENS = {
    "another key": token(key=b"x" * 40),
    "expired": token(ttl=-1),
    "not yet": token(nbf=time.time() + 3600),  # from when the tests are collected
    "no exp": jwt.encode({"sub": "ann"}, SECRET, "HS256"),
    "exp is text": token(exp="9999999999"),
    "exp is no number": token(exp=[1]),
    "exp is beyond numbers": token(exp=10**400),
    "exp is infinite": token(exp=inf),
    "no sub": jwt.encode({"exp": time.time() + 9}, SECRET, "HS256"),
    "sub is empty": token(subject=""),
    "sub has a line end": token(subject="ann\n"),
    "sub is half a character": token(subject="\ud800"),
    "sub is too long": token(subject="a" * 257),
    "alg none": _unsigned({"alg": "none"}),
    "alg None": _unsigned({"alg": "None"}) + "AA",
    "no alg": _unsigned({}) + "AA",
    "alg is a list": _unsigned({"alg": ["HS256"]}) + SIGNATURE,
    "another algorithm": jwt.encode({"sub": "ann", "exp": time.time() + 9}, SECRET + b"0" * 64, "HS512"),
    "for an audience": token(aud="somebody else"),
    "a critical header": jwt.encode({"sub": "a", "exp": 2**33}, SECRET, "HS256", headers={"crit": ["x"], "x": 1}),
    "its signature is cut": GOOD[:-4],
    "no signature": f"{HEAD}.{BODY}.",
    "its body was changed": f"{HEAD}.{BODY[:-4]}AAAA.{SIGNATURE}",
    "four parts": GOOD + ".AAAA",
    "empty": "",
    "not ASCII": GOOD[:-1] + "é",
    "a line end": GOOD + "\n",
    "padding": GOOD + "==",
    "deep": f"{DEEP}.{BODY}.{SIGNATURE}",
    "huge": f"{HEAD}.{'A' * 20_000}.{SIGNATURE}",
    "too many patterns": token(["a"] * 101),
    "a pattern with brackets": token(["[ab]"]),
    "a pattern with a question mark": token(["?"]),
    "sessions is text": jwt.encode({"sub": "a", "exp": 2**33, "sessions": "*"}, SECRET, "HS256"),
    "sessions holds a number": jwt.encode({"sub": "a", "exp": 2**33, "sessions": [1]}, SECRET, "HS256"),
    "scopes is text": jwt.encode({"sub": "a", "exp": 2**33, "scopes": "admin"}, SECRET, "HS256"),
    "scope is a list": jwt.encode({"sub": "a", "exp": 2**33, "scope": ["admin"]}, SECRET, "HS256"),
    "scope and scopes": token(scope="admin"),
}


@pytest.mark.parametrize("name", BAD_TOKENS)
def test_a_token_that_is_not_right_is_refused(name: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    bad = BAD_TOKENS[name]
    with pytest.raises(Unauthenticated) as refused:
        TOKENS(bad)
    if len(bad) > 40:
        assert bad[-40:] not in caplog.text + str(refused.value)


@given(st.text(max_size=60) | st.lists(st.text(alphabet="AZaz09-_", max_size=40)).map(".".join))
def test_no_text_is_a_token_or_a_bug(text: str) -> None:
    with pytest.raises(Unauthenticated):
        TOKENS(text)
    with pytest.raises(Unauthenticated):
        trio.run(Tickets().for_socket, text)
    with pytest.raises(Unauthenticated):
        Tickets().for_stream(text)


def test_audience_and_issuer_must_be_those_asked_for() -> None:
    strict = JwtTokens([SECRET], "HS256", audience="penstock", issuer="us")
    assert strict(token(aud=["penstock", "other"], iss="us")).subject == "ann"
    for claims in (
        {},
        {"aud": "penstock"},
        {"iss": "us"},
        {"aud": "other", "iss": "us"},
        {"aud": "penstock", "iss": "x"},
    ):
        with pytest.raises(Unauthenticated):
            strict(token(**claims))  # type: ignore[arg-type]


def test_while_keys_are_changed_both_hold() -> None:
    both = JwtTokens([b"n" * 32, SECRET], "HS256")
    assert both(token()).subject == both(token(key=b"n" * 32)).subject == "ann"


def test_a_clock_that_is_a_little_off_is_forgiven_until_the_same_moment_everywhere() -> None:
    read = JwtTokens([SECRET], "HS256", leeway=5)(token(exp=int(time.time()) - 2))
    assert 0 < read.expires_at - time.time() <= 3


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer ", "Basic abc", "abc", "Bearer\tabc"])
def test_what_is_no_bearer_header_is_refused(header: str) -> None:
    with pytest.raises(Unauthenticated):
        read_bearer(header)


def test_the_scheme_may_be_written_in_any_case() -> None:
    assert read_bearer("bearer abc") == read_bearer("BEARER  abc ") == "abc"


# --- keys


def _pem(key: Ed25519PrivateKey | RSAPrivateKey, folder: Path) -> tuple[Path, Path]:
    private, public = folder / "private.pem", folder / "public.pem"
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return private, public


@pytest.mark.parametrize("algorithm", ["EdDSA", "RS256"])
def test_public_keys_check_what_private_keys_sign(algorithm: Algorithm, tmp_path: Path) -> None:
    key = Ed25519PrivateKey.generate() if algorithm == "EdDSA" else generate_private_key(65537, 2048)
    private, public = _pem(key, tmp_path)
    made = make_token(load_signer(private, algorithm), subject="ann", scopes=["read"], sessions=["a"], ttl=60)
    tokens = JwtTokens([load_key(public, algorithm)], algorithm)
    assert tokens(made).sessions == ("a",)
    assert tokens.secrets == ()
    # The public key is no secret: a token signed with it as if it were one is none.
    claims = {"sub": "mallory", "exp": 2**33, "scopes": ["admin"], "sessions": ["*"]}
    header = base64.urlsafe_b64encode(b'{"alg":"HS256"}').rstrip(b"=").decode()
    body = base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=").decode()
    signature = base64.urlsafe_b64encode(digest(public.read_bytes(), f"{header}.{body}".encode(), "sha256"))
    for forged in (f"{header}.{body}.{signature.rstrip(b'=').decode()}", token()):
        with pytest.raises(Unauthenticated):
            tokens(forged)


def test_a_secret_file_may_end_with_a_line_end(tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(SECRET + b"\n")
    assert load_key(tmp_path / "key", "HS256") == SECRET


#
def test_keys_that_are_not_good_enough_are_refused_at_the_start(tmp_path: Path) -> None:
    ed, ed_public = _pem(Ed25519PrivateKey.generate(), tmp_path)
    weak = tmp_path / "weak"
    weak.mkdir()
    _, weak_public = _pem(generate_private_key(65537, 1024), weak)
    short = tmp_path / "short"
    short.write_bytes(b"x" * 31 + b"\n")
    cases: list[tuple[Path, Algorithm, str]] = [
        (short, "HS256", "31 bytes"),
        (ed_public, "HS256", "PEM form"),
        (ed_public, "RS256", "no key for RS256"),
        (weak_public, "RS256", "1024 bits"),
        (weak_public, "EdDSA", "no key for EdDSA"),
        (ed, "EdDSA", "private key"),
        (short, "EdDSA", "no public key"),
        (tmp_path / "nowhere", "HS256", "cannot be read"),
    ]
    for path, algorithm, told in cases:
        with pytest.raises(BadKey) as bad:
            load_key(path, algorithm)
        assert told in str(bad.value)
        assert str(path) in str(bad.value)
    with pytest.raises(ValueError):
        JwtTokens([], "HS256")


# --- tickets


async def test_a_ticket_for_a_socket_is_good_once() -> None:
    tickets, until = Tickets([SECRET]), time.time() + 500
    ticket = tickets.make(principal("a*", expires_at=until), ["ab*"], ["read"])
    assert await tickets.for_socket(ticket.text) == principal("ab*", scopes=("read",), expires_at=until)
    for _ in range(2):
        with pytest.raises(Unauthenticated):
            await tickets.for_socket(ticket.text)


async def test_a_ticket_for_a_socket_ends_with_the_process_and_one_for_a_stream_does_not() -> None:
    ticket = Tickets([SECRET]).make(principal("a"), ["a"], ["read"])
    again = Tickets([b"n" * 32, SECRET])
    with pytest.raises(Unauthenticated):
        await again.for_socket(ticket.text)
    assert again.for_stream(ticket.text).expires_at == ticket.expires_at
    with pytest.raises(Unauthenticated):
        Tickets().for_stream(ticket.text)  # where only public keys are, nothing is left to check it with


def test_a_ticket_for_a_stream_is_good_until_it_expires_and_no_longer_than_its_token() -> None:
    tickets = Tickets([SECRET])
    ticket = tickets.make(principal("a"), ["a"], ["read"], 3600)
    assert ticket.expires_at - time.time() == pytest.approx(3600, abs=2)
    assert tickets.for_stream(ticket.text).sessions == tickets.for_stream(ticket.text).sessions == ("a",)
    soon = time.time() + 20
    assert tickets.make(principal("a", expires_at=soon), ["a"], ["read"], 3600).expires_at <= soon
    with pytest.raises(Unauthenticated):
        tickets.for_stream(tickets.make(principal("a", expires_at=time.time() - 1), ["a"], ["read"]).text)


@pytest.mark.parametrize(
    ("sessions", "scopes", "ttl", "error"),
    [
        (["b"], ["read"], None, Forbidden),
        (["*"], ["read"], None, Forbidden),
        (["a", "b"], ["read"], None, Forbidden),
        (["a"], ["produce"], None, Forbidden),
        (["a"], ["read", "admin"], None, Forbidden),
        ([], ["read"], None, InvalidBody),
        (["a"], [], None, InvalidBody),
        (["a?"], ["read"], None, InvalidBody),
        (["[a]"], ["read"], None, InvalidBody),
        (["a"] * 101, ["read"], None, InvalidBody),
        (["a"], ["root"], None, InvalidBody),
        (["a"], ["read"], 0, InvalidBody),
        (["a"], ["read"], 3601, InvalidBody),
        (["a*"], ["read"], 61, InvalidBody),
        (["a"], ["read", "write"], 61, InvalidBody),
    ],
)
def test_a_ticket_is_never_more_than_its_token(
    sessions: list[str], scopes: list[str], ttl: int | None, error: type[Exception]
) -> None:
    with pytest.raises(error):
        Tickets().make(principal("a", "a-*"), sessions, scopes, ttl)


def test_only_a_ticket_for_one_session_and_for_reading_opens_a_stream() -> None:
    tickets = Tickets()
    for sessions, scopes in (
        (["a*"], ["read"]),
        (["a", "a1"], ["read"]),
        (["a"], ["read", "write"]),
        (["a"], ["write"]),
    ):
        ticket = tickets.make(principal("a*"), sessions, scopes)
        with pytest.raises(Unauthenticated):
            tickets.for_stream(ticket.text)


async def test_a_long_ticket_is_soon_too_old_for_a_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    tickets, now = Tickets(), time.time()
    ticket = tickets.make(principal("a"), ["a"], ["read"], 3600)
    monkeypatch.setattr("penstock.adapters.access.tickets.time.time", lambda: now + 61)
    with pytest.raises(Unauthenticated):
        await tickets.for_socket(ticket.text)


async def test_no_token_is_a_ticket_and_no_ticket_a_token() -> None:
    tickets = Tickets([SECRET])
    ticket = tickets.make(EVERYBODY, ["*"], ["admin"])
    with pytest.raises(Unauthenticated):
        TOKENS(ticket.text)
    with pytest.raises(Unauthenticated):
        JwtTokens([SECRET], "HS256", audience="penstock-ticket")(ticket.text)
    forged = token(aud="penstock-ticket", jti="x", process=tickets._process, iat=int(time.time()))
    with pytest.raises(Unauthenticated):
        await tickets.for_socket(forged)


async def test_used_tickets_are_forgotten_when_they_are_too_old_and_never_too_many(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("penstock.adapters.access.tickets._MAX_USED", 3)
    tickets, now = Tickets(), time.time()
    with monkeypatch.context() as earlier:
        earlier.setattr("penstock.adapters.access.tickets.time.time", lambda: now - 61)
        made = [tickets.make(principal("a"), ["a"], ["read"], 3600) for _ in range(4)]
        for ticket in made[:3]:
            await tickets.for_socket(ticket.text)
        with pytest.raises(Overloaded):
            await tickets.for_socket(made[3].text)
    later = tickets.make(principal("a"), ["a"], ["read"])
    await tickets.for_socket(later.text)
    assert len(tickets._used) == 1


class Store:
    """Remembers for several servers what was used up, unless it is away."""

    def __init__(self) -> None:
        self.away = False
        self.used: dict[str, float] = {}

    async def redeem(self, ticket_id: str, ttl: float) -> bool:
        await trio.lowlevel.checkpoint()
        if self.away:
            raise StorageError("the store is away")
        if ticket_id in self.used:
            return False
        self.used[ticket_id] = ttl
        return True


@pytest.mark.parametrize("secrets", [[], [SECRET]])
async def test_servers_that_share_a_secret_take_each_others_tickets_and_each_once(secrets: list[bytes]) -> None:
    store, one, two, other = Store(), Tickets(secrets), Tickets(secrets), Tickets(secrets)
    one.share(b"s" * 32, store.redeem)
    two.share(b"s" * 32, store.redeem)
    other.share(b"o" * 32, store.redeem)
    for maker, taker in ((one, two), (two, one), (one, one)):
        ticket = maker.make(principal("a"), ["a"], ["read"])
        for elsewhere in (other, Tickets(secrets)):
            with pytest.raises(Unauthenticated):
                await elsewhere.for_socket(ticket.text)
        assert (await taker.for_socket(ticket.text)).subject == "ann"
        for each in (one, two):
            with pytest.raises(Unauthenticated) as refused:
                await each.for_socket(ticket.text)
            assert refused.value.reason == "used"
        assert taker.for_stream(ticket.text).subject == maker.for_stream(ticket.text).subject == "ann"
    assert set(store.used.values()) == {60}


async def test_a_ticket_lets_nobody_in_while_the_store_is_away_that_knows_what_was_used() -> None:
    store, tickets = Store(), Tickets()
    tickets.share(b"s" * 32, store.redeem)
    ticket = tickets.make(principal("a"), ["a"], ["read"])
    store.away = True
    with pytest.raises(Overloaded) as refused:
        await tickets.for_socket(ticket.text)
    assert answer(refused.value).status == 503
    store.away = False
    await tickets.for_socket(ticket.text)


def test_keys_that_are_read_again_do_not_end_what_servers_share() -> None:
    one, two = Tickets(), Tickets()
    for each in (one, two):
        each.share(b"s" * 32, Store().redeem)
    ticket = one.make(principal("a"), ["a"], ["read"])
    two.replace([])
    assert two.for_stream(ticket.text).subject == "ann"


# --- the authority


async def test_an_application_can_refuse_more_and_never_allow_more() -> None:
    asked: list[str | None] = []

    async def authorize(who: Principal, action: Scope, session_id: str | None) -> bool:
        asked.append(session_id)
        return session_id == "a"

    own = Identity(TOKENS, authorize=authorize)
    who = own.authenticate(token(["a", "c"], ["read"]))
    await own.check(who, "read", "a")
    for action, session_id in (("read", "c"), ("read", "b"), ("write", "a")):
        with pytest.raises(Forbidden):
            await own.check(who, action, session_id)  # type: ignore[arg-type]
    assert asked == ["a", "c"]


async def test_only_true_is_a_yes() -> None:
    own = Identity(TOKENS, authorize=lambda *_: "no")  # type: ignore[arg-type]
    with pytest.raises(Forbidden):
        await own.check(own.authenticate(token()), "read", "a")


async def test_what_the_time_of_is_over_may_nothing_more() -> None:
    own = Identity(TOKENS)
    with pytest.raises(Unauthenticated):
        await own.check(principal("*", expires_at=time.time() - 0.01), "read", "a")
    with pytest.raises(Unauthenticated):
        own.authenticate(None)
