"""The pure parts: failures and their codes, pauses, server-sent events cut in any way, usage."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.adapters.forms.sse_reader import EventStream
from penstock.adapters.models.failures import CODES, ModelFailure, of_error, retry_after
from penstock.adapters.models.retries import Retries
from penstock.adapters.models.usage import add, tokens
from penstock.adapters.models.wire import number, objects, parse, part, text
from penstock.engine import JSON


@pytest.mark.parametrize(
    ("status", "words", "code"),
    [
        (429, (), "MODEL_RATE_LIMITED"),
        (429, ("insufficient_quota", "insufficient_quota"), "MODEL_QUOTA"),
        (429, ("billing_not_active", "billing_not_active"), "MODEL_QUOTA"),
        (400, ("context_length_exceeded", "invalid_request_error"), "MODEL_CONTEXT_TOO_LONG"),
        (404, (None, "invalid_request_error"), "MODEL_NOT_FOUND"),
        (401, (None, "invalid_request_error"), "MODEL_AUTH"),
        (400, ("content_policy_violation", None), "MODEL_REFUSED"),
        (529, ("overloaded_error",), "MODEL_UNAVAILABLE"),
        (418, ("of_tomorrow",), "MODEL_REJECTED"),
        (599, (), "MODEL_UNAVAILABLE"),
        (None, ("of_tomorrow", None), "MODEL_UNAVAILABLE"),
        (None, (429, None), "MODEL_RATE_LIMITED"),
        (None, ("429", None), "MODEL_RATE_LIMITED"),
        (None, ("502", "server_error"), "MODEL_UNAVAILABLE"),
        (None, ("invalid_image_url", None), "MODEL_REJECTED"),
        (None, ("failed_to_download_image", None), "MODEL_REJECTED"),
        (None, ("image_too_large", None), "MODEL_REJECTED"),
        (None, ("image_content_policy_violation", None), "MODEL_REFUSED"),
        (None, ("bio_policy", None), "MODEL_REFUSED"),
    ],
)
def test_a_provider_says_what_is_wrong_by_word_or_by_status(
    status: int | None, words: tuple[JSON, ...], code: str
) -> None:
    assert of_error(dict(zip(("code", "type"), words, strict=False)), status=status).code == code


@pytest.mark.parametrize(
    ("told", "status", "code"),
    [
        # Within `error`, as OpenAI, Anthropic and most others have it; the code may be a number.
        (
            {"error": {"message": "x", "type": "invalid_request_error", "code": "model_not_found"}},
            400,
            "MODEL_NOT_FOUND",
        ),
        ({"type": "error", "error": {"type": "overloaded_error", "message": "x"}}, None, "MODEL_UNAVAILABLE"),
        ({"error": {"code": 429, "message": "x", "type": "of_tomorrow"}}, None, "MODEL_RATE_LIMITED"),
        # By itself.
        ({"object": "error", "message": "x", "type": "NotFoundError", "code": 404}, 404, "MODEL_NOT_FOUND"),
        ({"type": "error", "code": "rate_limit_exceeded", "message": "x"}, None, "MODEL_RATE_LIMITED"),
        # A text, and what is no error's shape at all: the status is left.
        ({"error": "model 'x' not found, try pulling it first"}, 404, "MODEL_NOT_FOUND"),
        ({"error": "x"}, None, "MODEL_UNAVAILABLE"),
        ({"detail": [{"loc": ["body"]}]}, 422, "MODEL_REJECTED"),
        ({"error": None}, 503, "MODEL_UNAVAILABLE"),
        ("upstream connect error", 503, "MODEL_UNAVAILABLE"),
        ("", 401, "MODEL_AUTH"),
        (None, 400, "MODEL_REJECTED"),
        ([7], 400, "MODEL_REJECTED"),
    ],
)
def test_an_error_is_read_in_each_shape_that_servers_give_it(told: JSON, status: int | None, code: str) -> None:
    assert of_error(told, status=status).code == code


def _openai(message: str, **more: JSON) -> JSON:
    return {"error": {"message": message, "type": "invalid_request_error", **more}}


LONG: list[tuple[str, JSON, int | None]] = [
    (
        "llama.cpp",
        {
            "error": {
                "code": 400,
                "message": "request (4476 tokens) exceeds the available context size (4096 tokens), try increasing it",
                "type": "exceed_context_size_error",
                "n_prompt_tokens": 4476,
                "n_ctx": 4096,
            }
        },
        400,
    ),
    ("llama.cpp, older", _openai("the request exceeds the available context size. try increasing it", code=400), 400),
    (
        "vLLM",
        {
            "object": "error",
            "message": "This model's maximum context length is 4096 tokens. However, you requested 5000 tokens.",
            "type": "BadRequestError",
            "param": None,
            "code": 400,
        },
        400,
    ),
    (
        "vLLM, prompt",
        {
            "error": {
                "message": "The decoder prompt (length 9254) is longer than the maximum model length of 4096.",
                "type": "BadRequestError",
                "code": 400,
            }
        },
        400,
    ),
    (
        "vLLM, no room",
        {
            "error": {
                "message": "max_tokens must be at least 1, got -7584. (parameter=max_tokens, value=-7584)",
                "type": "BadRequestError",
                "param": "max_tokens",
                "code": 400,
            }
        },
        400,
    ),
    ("Ollama", {"error": "prompt too long; exceeded max context length by 17 tokens"}, 400),
    ("Ollama, 500", {"error": {"message": "the input length exceeds the context length", "type": "api_error"}}, 500),
    (
        "LM Studio",
        {
            "error": "Trying to keep the first 4102 tokens when context the overflows. However, the model is loaded "
            "with context length of only 2048 tokens, which is not enough."
        },
        None,
    ),
    (
        "LM Studio, newer",
        _openai("The number of tokens to keep from the initial prompt is greater than the context length."),
        400,
    ),
    ("OpenAI", _openai("Please shorten it.", code="context_length_exceeded", param="messages"), 400),
    ("OpenAI, text", _openai("Your input exceeds the context window of this model."), 400),
    (
        "Anthropic",
        {
            "type": "error",
            "error": {
                "type": "invalid_request_error",
                "message": "prompt is too long: 210000 tokens > 200000 maximum",
            },
        },
        400,
    ),
    (
        "Anthropic, sum",
        _openai("input length and `max_tokens` exceed context limit: 188240 + 21333 > 200000, decrease input length"),
        400,
    ),
    ("Anthropic, bytes", {"type": "error", "error": {"type": "request_too_large", "message": "x"}}, 413),
]


@pytest.mark.parametrize(("told", "status"), [each[1:] for each in LONG], ids=[each[0] for each in LONG])
def test_that_a_request_is_too_long_is_understood_from_every_server(told: JSON, status: int | None) -> None:
    failure = of_error(told, status=status)
    assert (failure.code, failure.retryable) == ("MODEL_CONTEXT_TOO_LONG", False)


@pytest.mark.parametrize(
    ("told", "status", "code"),
    [
        (_openai("max_tokens must be at least 1, got 0."), 400, "MODEL_REJECTED"),
        (_openai("Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."), 400, "MODEL_REJECTED"),
        (
            {
                "error": {
                    "message": "Tokens per min. Reduce the length of it.",
                    "code": "rate_limit_exceeded",
                }
            },
            429,
            "MODEL_RATE_LIMITED",
        ),
        ({"error": "no key, no context window"}, 401, "MODEL_AUTH"),
        ({"error": {"message": "the context window of the pool", "code": "insufficient_quota"}}, 429, "MODEL_QUOTA"),
    ],
)
def test_what_is_refused_for_another_reason_is_not_too_long(told: JSON, status: int, code: str) -> None:
    assert of_error(told, status=status).code == code


def test_the_log_has_what_a_server_said_in_a_shape_of_its_own() -> None:
    assert "the pool is empty" in str(of_error({"error": {"message": "the pool is empty"}}, status=503))
    assert "the pool is empty" in str(of_error({"detail": "the pool is empty"}, status=503))
    assert "the pool is empty" in str(of_error("the pool is empty", status=503))


def test_what_a_provider_says_of_asking_again_counts_for_more_than_the_status() -> None:
    assert not of_error("", status=503, headers={"x-should-retry": "false"}).retryable
    assert of_error("", status=400, headers={"x-should-retry": "true"}).retryable


def test_texts_for_readers_say_nothing_of_the_provider() -> None:
    told = of_error("secret inside", status=500)
    assert "secret" not in told.told()
    assert "secret" not in told.told(in_own_words=True), "it is not about the request"
    assert "secret" in str(told)  # the log has it
    assert "sk-" not in str(of_error("the key sk-12345 is wrong", status=401))
    assert all(text for text, _ in CODES.values())


def test_why_a_request_was_not_accepted_is_told_to_who_may_know() -> None:
    rejected = of_error(_openai("Unknown parameter:\n 'temprature'." + "x" * 600), status=400)
    assert "temprature" not in rejected.told()
    told = rejected.told(in_own_words=True)
    assert told.startswith(f"{rejected.told()} It says: Unknown parameter: 'temprature'.")
    assert len(told) < 600
    for code, status in (("MODEL_NOT_FOUND", 404), ("MODEL_CONTEXT_TOO_LONG", 413)):
        failure = of_error("so it is", status=status)
        assert (failure.code, failure.told(in_own_words=True)) == (code, f"{failure.told()} It says: so it is")
    assert "address" in of_error("", status=404).told()
    assert "sk-1" not in of_error("sk-1", status=401).told(in_own_words=True)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after-ms": "250", "retry-after": "7"}, 0.25),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "Wed, 21 Oct 99999999999999999999 07:28:00 GMT"}, None),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 +99999999999999999999"}, None),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0.0),
    ],
)
def test_retry_after_in_each_of_its_forms(headers: Mapping[str, str], seconds: float | None) -> None:
    assert retry_after(headers) == seconds


def test_retry_after_as_a_date_counts_from_now() -> None:
    soon = retry_after({"retry-after": format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)})
    assert soon is not None
    assert 25 < soon <= 30


def test_pauses_double_up_to_their_limit_and_attempts_end() -> None:
    retries, busy = Retries(attempts=7), ModelFailure("MODEL_UNAVAILABLE", "")
    assert [retries.pause(n, busy, 0.0) for n in range(1, 8)] == [0.5, 1, 2, 4, 8, 8, None]
    assert retries.pause(1, busy, 1.0) == 0.375
    assert retries.pause(1, ModelFailure("MODEL_AUTH", ""), 0.0) is None


def test_a_pause_that_was_asked_for_is_kept_or_refused_never_shortened() -> None:
    retries = Retries(patience=10)
    assert retries.pause(1, ModelFailure("MODEL_RATE_LIMITED", "", retry_after=10), 1.0) == 10
    assert retries.pause(1, ModelFailure("MODEL_RATE_LIMITED", "", retry_after=10.1), 0.0) is None
    # A date that is over by a clock of ours is no leave to ask four times in a row.
    assert retries.pause(1, ModelFailure("MODEL_RATE_LIMITED", "", retry_after=0.0), 0.0) == retries.first_pause


STREAM = (
    b': hello\r\n\r\nevent: a\r\ndata: {"n":\r\ndata: 1}\r\n\r\n'
    b"id: 7\ndata:x\xe2\x80\xa8y\n\ndata: z\rdata\r\r\ndata: end"
)


@given(st.sets(st.integers(1, len(STREAM) - 1)))
def test_events_are_the_same_however_the_bytes_are_cut(cuts: set[int]) -> None:
    stream, ends = EventStream(1000), itertools.pairwise([0, *sorted(cuts), len(STREAM)])
    found = [event.data for a, b in ends for event in stream.feed(STREAM[a:b])]
    assert found == ['{"n":\n1}', "x\u2028y", "z\n"]


@given(st.binary(max_size=200))
def test_any_bytes_are_events_or_none(garbage: bytes) -> None:
    try:
        found = EventStream(1000).feed(garbage)
    except ValueError:
        return  # it is not UTF-8
    for event in found:
        try:
            value = parse(event.data or "")
            text(value, "a")
            number(value, "a")
            part(value, "b")
            objects(value, "c")
        except ModelFailure as failure:
            if failure.code != "MODEL_GARBLED":
                raise


def test_what_is_absent_or_null_is_empty_and_what_is_of_another_type_is_garbled() -> None:
    for value in ({}, {"a": None}):
        assert (text(value, "a"), number(value, "a"), part(value, "a"), objects(value, "a")) == ("", 0, {}, [])
    said: dict[str, JSON] = {
        "text": "x",
        "number": 1,
        "part": {"b": 1},
        "objects": [{}],
        "yes": True,
        "less": -1,
        "more": 2**53,
        "ones": [1],
    }
    assert (text(said, "text"), number(said, "number")) == ("x", 1)
    assert (part(said, "part"), objects(said, "objects")) == ({"b": 1}, [{}])
    fits = {text: ("text",), number: ("number",), part: ("part",), objects: ("objects",)}
    for read, names in fits.items():
        for name in said.keys() - set(names):
            with pytest.raises(ModelFailure) as caught:
                read(said, name)
            assert caught.value.code == "MODEL_GARBLED"


def test_usage_adds_up() -> None:
    one = tokens(input_tokens=10, output_tokens=5, cached_tokens=4, reasoning_tokens=0)
    other = tokens(input_tokens=20, output_tokens=1, cached_tokens=0, reasoning_tokens=1)
    assert add(one, other) == {"input_tokens": 30, "output_tokens": 6, "cached_tokens": 4, "reasoning_tokens": 1}
    begun = tokens(input_tokens=7, output_tokens=None, cached_tokens=0, reasoning_tokens=0)
    assert add(one, begun) == {"input_tokens": 17, "output_tokens": 5, "cached_tokens": 4}
