"""Naturalness and both judges; the OpenAI path talks to a small server on this machine."""

from __future__ import annotations

import json
import random
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from harness.contracts import HarnessError
from harness.texts.language import (
    CODES,
    LABELS,
    NATURAL_FROM,
    NOT_NATURAL,
    PROMPT,
    FastTextJudge,
    OpenAIJudge,
    language_code,
    load_identifier,
    naturalness,
    parse_label,
)

NATURAL = {
    "English": "Karen Hale (born 3 May 1949) is an Armenian politician; she has been in parliament since 1999.",
    "German": "Die Fußgängerbrücke über die Würm wurde 1897 gebaut und ist heute, nach langer Zeit, wieder geöffnet.",
    "Spanish": "La noche era fría y el hombre miró el jardín. ¿Quién había abierto la puerta de la cocina?",
    "French": "L'église, qu'on a bâtie au XIIe siècle, se trouve aujourd'hui près de l'hôtel de ville d'Orléans.",
    "Italian": "Nell'estate del 1956 la città costruì un ponte sul fiume; c'è ancora, ed è molto amato.",
}
UNNATURAL = {
    "empty": "",
    "spaces": " \n ",
    "two words": "la casa",
    "repetition": "y el y el y el y el y el y el y el y el",
    "collapse": "el año en el año en el año el año en el año el año del año en el año el año en el año del año el año",
    "hexadecimal": "664747d3-69bf-46db-b4d0-83649b5423fb 6646 46db a3f9 00be 12ff 6f-b4 9b-54 23fb 7d36 9bf4",
    "digits": "1999 2004 1723 88 19 2003 1001",
    "consonants": "xq zrtp bnm wqrt kdl ssr ptk mnb vcx",
    "punctuation": "( . ) ; ; -- ** | | # # . . ! ? el . . ; la .",
    "capitals inside": "posOffset getValue nameOfThing setItem readLine toString eachOne",
    "one long string": "abababababababababababababababababababababababababab" * 3,
    "replacement characters": "\ufffd\ufffd el \ufffd\ufffd\ufffd la \ufffd \ufffd\ufffd",
}


@pytest.mark.parametrize("language", NATURAL)
def test_running_text_is_natural(language):
    assert naturalness(NATURAL[language]) >= NATURAL_FROM


@pytest.mark.parametrize("language", ["en", "de", "es", "fr", "it"])
def test_the_worlds_held_out_texts_are_natural(language):
    from harness.miniature.world.articles import article
    from harness.miniature.world.passages import split

    texts = [article(subject, language, variant) for subject in range(21_000, 21_100) for variant in (0, 1)]
    texts += split("test", language)
    natural = sum(naturalness(text) >= NATURAL_FROM for text in texts)
    assert natural >= 0.99 * len(texts)


@pytest.mark.parametrize("kind", UNNATURAL)
def test_what_is_no_text_is_not_natural(kind):
    assert naturalness(UNNATURAL[kind]) <= NATURAL_FROM - 0.1


@pytest.mark.parametrize("decoding", ["latin-1", "utf-8"])
def test_random_bytes_are_not_natural(decoding):
    rng = random.Random(0)
    scores = [naturalness(rng.randbytes(120).decode(decoding, "replace")) for _ in range(200)]
    assert max(scores) <= NATURAL_FROM - 0.1


def test_naturalness_by_hand():
    # 20 characters without the two full stops are letters or spaces; bigrams: 4, all different; 5 of 5 words
    assert naturalness("el sol. la luna. mar") == pytest.approx(18 / 20)
    # the distinct bigrams are (a, b) and (b, a), of five
    assert naturalness("ab ba ab ba ab ba") == pytest.approx(2 / 5)
    # one candidate of the four wanted
    assert naturalness("casa") == pytest.approx(1 / 4)


def test_language_codes():
    assert [language_code(label) for label in ("__label__es", "__label__spa_Latn", "de", "__label__pt")] == [
        "es",
        "es",
        "de",
        "pt",
    ]


class FakeIdentifier:
    def language(self, text):
        return {"Hola": "__label__spa_Latn", "Hello": "__label__en", "Olá": "__label__pt"}[text.split()[0]]


def test_fasttext_judge():
    texts = ["Hola a todos los amigos", "Hello to all of you", "Olá a todos os amigos", "Hola la la la la la la la", ""]
    assert FastTextJudge(FakeIdentifier()).judge(texts) == [
        "Spanish",
        "English",
        NOT_NATURAL,
        NOT_NATURAL,
        NOT_NATURAL,
    ]
    assert FastTextJudge(FakeIdentifier(), threshold=0.0).judge(texts[3:4]) == ["Spanish"]


@pytest.mark.parametrize(("code", "language"), CODES.items())
def test_the_embedded_judge_names_the_language_of_held_out_texts(code, language):
    from harness import miniature
    from harness.miniature.world.articles import article
    from harness.miniature.world.passages import split

    texts = [article(subject, code) for subject in range(21_000, 21_060)] + split("test", code)[:60]
    labels = FastTextJudge(load_identifier(miniature.path("language_id"))).judge(texts)
    assert labels.count(language) >= 0.99 * len(texts)


# ------------------------------------------------------------------------------------------------------------- OpenAI

KEY = "sk-do-not-tell"


class Server:
    """Plays the endpoint: `replies` are handed out in order, the last one for ever; (status, content) each."""

    def __init__(self, replies):
        self.replies, self.requests, lock = list(replies), [], threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with lock:
                    outer.requests.append((self.path, self.headers["Authorization"], body))
                    status, content = outer.replies[0] if len(outer.replies) == 1 else outer.replies.pop(0)
                if callable(content):
                    content = content(body["messages"][0]["content"])
                if status == 200 and isinstance(content, str):
                    content = {"choices": [{"message": {"role": "assistant", "content": content}}]}
                data = json.dumps(content).encode()
                self.send_response(status)
                if status == 302:
                    self.send_header("Location", f"http://127.0.0.1:{outer.port}/elsewhere")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def serve(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    servers = []

    def start(*replies, **settings):
        servers.append(Server(replies))
        base_url = f"http://127.0.0.1:{servers[-1].port}/v1"
        return servers[-1], OpenAIJudge(base_url=base_url, backoff=0.001, attempts=3, timeout=5, **settings)

    yield start
    for server in servers:
        server.close()


def test_the_question_is_the_papers():
    assert PROMPT == (
        "Classify the language of the following excerpt. Your answer must be the best choice of: English, Spanish, "
        "German, Italian, French, Not Natural Language. Output only your final choice with no explanation. Here is the "
        "excerpt: <excerpt>"
    )


def test_openai_judge_asks_once_a_text_and_keeps_the_order(serve):
    def answer(question):
        return "Spanish" if "Hola" in question else "english."

    server, judge = serve((200, answer), model="some-model")
    assert judge.judge(["Hello you", "Hola", "Hello you", "", "Hola"]) == [
        "English",
        "Spanish",
        "English",
        NOT_NATURAL,
        "Spanish",
    ]
    assert len(server.requests) == 2
    path, authorization, body = next(request for request in server.requests if "Hola" in str(request))
    assert (path, authorization) == ("/v1/chat/completions", f"Bearer {KEY}")
    assert body["model"] == "some-model" and body["temperature"] == 0
    assert body["messages"] == [{"role": "user", "content": PROMPT.replace("<excerpt>", "Hola")}]


@pytest.mark.parametrize(
    "trouble",
    [(429, {}), (500, {}), (200, "Portuguese"), (200, {"choices": []}), (200, [1]), (200, {"choices": None})],
    ids=["busy", "broken", "no label", "no choice", "a list", "null"],
)
def test_openai_judge_tries_again(serve, trouble):
    server, judge = serve(trouble, trouble, (200, "French"))
    assert judge.judge(["Bonjour"]) == ["French"]
    assert len(server.requests) == 3


@pytest.mark.parametrize(
    ("reply", "why"),
    [((503, {}), "status 503"), ((200, "Klingon"), "Klingon"), ((200, {}), "no chat completion")],
    ids=["broken", "no label", "no completion"],
)
def test_openai_judge_gives_up_with_a_reason(serve, reply, why):
    server, judge = serve(reply)
    with pytest.raises(HarnessError, match=why):
        judge.judge(["Bonjour"])
    assert len(server.requests) == 3


@pytest.mark.parametrize("status", [401, 404, 302])
def test_openai_judge_stops_at_a_refusal_and_never_tells_the_key(serve, status):
    server, judge = serve((status, {"error": f"Incorrect API key provided: {KEY}"}))
    with pytest.raises(HarnessError) as caught:
        judge.judge(["Bonjour"])
    assert f"status {status}" in str(caught.value) and "OPENAI_API_KEY" in str(caught.value)
    chain = [caught.value, caught.value.__cause__]
    assert KEY not in "".join(map(repr, chain)) and caught.value.__suppress_context__
    assert [path for path, _, _ in server.requests] == ["/v1/chat/completions"]  # a redirect is not followed


def test_openai_judge_out_of_reach(monkeypatch):
    monkeypatch.setenv("MY_KEY", KEY)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    judge = OpenAIJudge(base_url="http://127.0.0.1:9", key_variable="MY_KEY", backoff=0.001, attempts=2, timeout=1)
    with pytest.raises(HarnessError, match="gave no label in 2 attempts"):
        judge.judge(["Bonjour"])


def test_openai_judge_without_a_key(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(HarnessError, match="OPENAI_API_KEY"):
        OpenAIJudge()
    monkeypatch.setenv("OPENAI_API_KEY", f"{KEY}\nX-Other: 1")
    with pytest.raises(HarnessError, match="characters that no key has") as caught:
        OpenAIJudge()
    assert KEY not in str(caught.value)


def test_openai_judge_refuses_other_schemes(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with pytest.raises(HarnessError, match="http"):
        OpenAIJudge(base_url="file:///etc")


@pytest.mark.parametrize("label", LABELS)
def test_labels_are_read_whatever_their_dress(label):
    assert parse_label(f' "{label.upper()}."\n') == label
    assert parse_label(f"It is {label}") is None
