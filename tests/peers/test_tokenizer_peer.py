"""Token ids and decoded text, against the `tokenizers` package.

GQA_BUILD names the build folder that holds `tokenize_lines`. Inputs are random and adversarial, from
fixed seeds: everything that a tokenizer.json of each kind treats specially, alone, adjacent and cut short.
"""

import json
import os
import random
import subprocess
from pathlib import Path

import pytest
from tokenizers import (AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers,
                        trainers)

ROOT = Path(__file__).resolve().parents[2]
BUILD = Path(os.environ.get("GQA_BUILD", ROOT / "build" / "release"))
MODEL = ROOT / "models" / "tales-mha"

LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
          r"|\s*[\r\n]+|\s+(?!\S)|\s+")
MULTILINGUAL = """
Der schnelle braune Fuchs springt über den faulen Hund. Les élèves étaient là, où ça ? ¿Qué pasa, señor?
Съешь же ещё этих мягких французских булок. Ξεσκεπάζω την ψυχοφθόρα βδελυγμία. שלום עולם. مرحبا بالعالم.
すべての人間は、生まれながらにして自由である。天地玄黃，宇宙洪荒。모든 인간은 태어날 때부터 자유롭다.
हिन्दी में लिखा हुआ। ภาษาไทยไม่มีช่องว่าง. 1,234.56 + ٣٤٥ = Ⅻ. def f(x):\n\treturn  x**2  # ok\r\n
"""

SPACES = [" ", "  ", "\t", "\n", "\r\n", "\n\n", "\u00a0", "\u2009", "\u3000", "\u2028", "\x0b", "\x85",
          "\u200b", "\u200c", "\u200d", "\ufeff", "\u180e", "\u1680"]
SPECIALS = ["<s>", "</s>", "<unk>", "<s", "s>", "</", "<<s>>", "<s><s>", "<0x41>", "<0x0A>", "<0xZZ>", "<0x",
            "<|end|>", "<|end|", "|>", "<mask>", "NAME", "name", "ab", "abc", "abcd", "bc", "<s>x", " <s> "]
CONTRACTIONS = ["'s", "'S", "'t", "'re", "'RE", "'ve", "'m", "'ll", "'Ll", "'d", "'\u017f", "'", "''",
                "I'm", "can't", "we'LL've", "\u2019s"]
EMOJI = ["\U0001F468\u200d\U0001F469\u200d\U0001F467", "\U0001F1E9\U0001F1EA", "\u2764\ufe0f",
         "\U0001F44D\U0001F3FD",
         "\U0001F600", "\U0001FAE8"]
MARKS = ["e\u0301", "\u0301", "a\u0308\u0323", "\u0915\u094d\u0937", "\u0e01\u0e33", "\u1112\u1161\u11ab", "\u20dd"]
META = ["\u2581", "\u2581\u2581", "\u2581a", "a\u2581", " \u2581 ", "\u0120", "\u010a", "\u00c4\u00a0", "\ufffd"]


def code_point(rng, low=0, high=0x110000):
    while True:
        c = rng.randrange(low, high)
        if not 0xD800 <= c < 0xE000:
            return chr(c)


def fragment(rng, words):
    kind = rng.randrange(14)
    if kind == 0:
        return "".join(chr(rng.randrange(0x20, 0x7F)) for _ in range(rng.randrange(1, 12)))
    if kind == 1:
        return " ".join(rng.choice(words) for _ in range(rng.randrange(1, 9)))
    if kind == 2:
        return "".join(rng.choice(SPACES) for _ in range(rng.randrange(1, 6)))
    if kind == 3:
        return "".join(code_point(rng) for _ in range(rng.randrange(1, 6)))
    if kind == 4:
        return "".join(code_point(rng, 0x80, 0x3400) for _ in range(rng.randrange(1, 8)))
    if kind == 5:
        return "".join(chr(rng.randrange(0, 0x20)) for _ in range(rng.randrange(1, 4)))
    if kind == 6:
        return "".join(rng.choice(SPECIALS) for _ in range(rng.randrange(1, 4)))
    if kind == 7:
        return rng.choice(CONTRACTIONS)
    if kind == 8:
        return rng.choice(EMOJI) * rng.randrange(1, 3)
    if kind == 9:
        return rng.choice(MARKS)
    if kind == 10:
        return "".join(rng.choice(META) for _ in range(rng.randrange(1, 4)))
    if kind == 11:
        return "".join(rng.choice("0123456789.,\u0664\u00bd") for _ in range(rng.randrange(1, 12)))
    if kind == 12:
        return rng.choice(["a", " ", "\n", "\u2581", "1", "ab", "\u00e9", "\U0001F600"]) * rng.randrange(1, 30)
    return code_point(rng) * rng.randrange(1, 5)


def texts(count, seed):
    rng = random.Random(seed)
    words = (MODEL / "heldout.txt").read_text(encoding="utf-8").split() + MULTILINGUAL.split()
    yield from ["", " ", "\n", "\ufeff", "\ufeffa", "\u2581", "a", "<s>", "\x00", "a" * 5000, " " * 5000,
                "\u2581" * 999, "\U0001F600" * 999, "<s>" * 500, "ab" * 3000, "\n \t" * 500]
    for _ in range(count - 16):
        yield "".join(fragment(rng, words) for _ in range(rng.choice([1, 1, 2, 2, 3, 4, 6])))


def id_lists(count, seed, limit):
    """Ids at random, unknown ones and (with byte fallback) invalid bytes among them."""
    rng = random.Random(seed)
    for _ in range(count):
        high = rng.choice([3, 260, limit, limit, limit + 5])
        yield [rng.randrange(high) for _ in range(rng.randrange(0, 12))]


def ask(file, requests, tmp_path):
    """The answers of tokenize_lines, which also checks that streams give what decode() gives."""
    source = tmp_path / "requests.jsonl"
    source.write_text("".join(json.dumps(r) + "\n" for r in requests))
    with source.open("rb") as stdin:
        done = subprocess.run([BUILD / "tokenize_lines", file], stdin=stdin, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(answers) == len(requests)
    return answers


def compare(tokenizer, tmp_path, count, seed):
    file = tmp_path / "tokenizer.json"
    tokenizer.save(str(file))
    tokenizer = Tokenizer.from_file(str(file))
    inputs = list(texts(count, seed))
    limit = max(tokenizer.get_vocab().values()) + 1
    lists = list(id_lists(count // 5, seed + 1, limit))
    answers = ask(file, inputs + lists, tmp_path)
    encodings = tokenizer.encode_batch(inputs, add_special_tokens=False)
    ids = [e.ids for e in encodings] + lists
    plain = tokenizer.decode_batch(ids, skip_special_tokens=True)
    everything = tokenizer.decode_batch(ids, skip_special_tokens=False)
    wrong = [(given, got, want) for given, got, *want in zip(inputs + lists, answers, ids, plain, everything)
             if [got["ids"], got["text"], got["text_all"]] != want]
    assert not wrong, f"{len(wrong)} of {len(answers)} differ, the first:\n" + "\n".join(
        f"{given!r}\n  got {got}\n  want {want}" for given, got, want in wrong[:3])
    assert len(answers) == count + count // 5


def corpus():
    return (MODEL / "heldout.txt").read_text(encoding="utf-8").splitlines() + MULTILINGUAL.splitlines() * 20


def byte_level(pre_tokenizer, ignore_merges=False, added=()):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=2000, special_tokens=["<|end|>"], show_progress=False,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(corpus(), trainer)
    tokenizer.add_tokens(list(added))
    tokenizer.model.ignore_merges = ignore_merges
    return tokenizer


def byte_fallback(pre_tokenizer=None, normalizer=None, decoder=None, added=()):
    """A SentencePiece-like tokenizer: trained on metaspaced words, byte tokens added to its vocabulary."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.BpeTrainer(
        vocab_size=1500, show_progress=False,
        special_tokens=["<unk>", "<s>", "</s>"] + [f"<0x{b:02X}>" for b in range(256)])
    tokenizer.train_from_iterator(corpus(), trainer)
    data = json.loads(tokenizer.to_str())
    data["model"].update(byte_fallback=True, fuse_unk=True, unk_token="<unk>")
    data["added_tokens"] = data["added_tokens"][:3]
    tokenizer = Tokenizer.from_str(json.dumps(data))
    tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.normalizer = normalizer
    tokenizer.decoder = decoder
    tokenizer.add_tokens(list(added))
    return tokenizer


def added_tokens(normalized):
    """Every option of added tokens, on strings that are prefixes of one another or overlap."""
    def token(text, **options):
        return AddedToken(text, normalized=normalized, **options)
    return [token("ab"), token("abcd"), token("bc"), token("<mask>", lstrip=True, special=True),
            token("NAME", single_word=True), token("name", lstrip=True, rstrip=True), token("<0x", rstrip=True),
            token("\u00e9"), token("  ")]


def test_tales(tmp_path):
    compare(Tokenizer.from_file(str(MODEL / "tokenizer.json")), tmp_path, 100_000, 1)


def test_gpt2(tmp_path):
    compare(byte_level(pre_tokenizers.ByteLevel(add_prefix_space=False)), tmp_path, 20_000, 2)


@pytest.mark.parametrize("unknown", [None, "<unk>"])
@pytest.mark.parametrize("fuse", [True, False])
def test_bytes_without_tokens(tmp_path, unknown, fuse):
    """SmolLM2's vocabulary, for one, lacks 21 bytes."""
    data = json.loads(byte_level(pre_tokenizers.ByteLevel(add_prefix_space=False)).to_str())
    vocab = data["model"]["vocab"]
    merged = {symbol for pair in data["model"]["merges"] for symbol in pair}
    lost = [symbol for symbol in pre_tokenizers.ByteLevel.alphabet() if symbol not in merged]
    assert len(lost) > 20
    for symbol in lost:
        del vocab[symbol]
    if unknown:
        vocab[unknown] = max(vocab.values()) + 1
    data["model"].update(unk_token=unknown, fuse_unk=fuse)
    compare(Tokenizer.from_str(json.dumps(data)), tmp_path, 10_000, 12)


def test_llama3(tmp_path):
    pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(LLAMA3), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    compare(byte_level(pre_tokenizer, ignore_merges=True), tmp_path, 20_000, 3)


@pytest.mark.parametrize("scheme", ["first", "always", "never"])
@pytest.mark.parametrize("split", [True, False])
def test_metaspace(tmp_path, scheme, split):
    pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=split)
    decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace(prepend_scheme=scheme)])
    compare(byte_fallback(pre_tokenizer, decoder=decoder), tmp_path, 20_000 if scheme == "first" else 4_000, 4)


@pytest.mark.parametrize("normalized", [True, False])
def test_added_tokens_of_the_llama2_kind(tmp_path, normalized):
    normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(),
                                 decoders.Strip(" ", 1, 0)])
    compare(byte_fallback(None, normalizer, decoder, added_tokens(normalized)), tmp_path, 10_000, 5)


@pytest.mark.parametrize("normalized", [True, False])
def test_added_tokens_with_metaspace_first(tmp_path, normalized):
    pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.Strip(" ", 0, 1),
                                 decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 2, 0)])
    tokenizer = byte_fallback(pre_tokenizer, normalizers.Replace(Regex(r"[ \t]{2}"), " "), decoder,
                              added_tokens(normalized))
    compare(tokenizer, tmp_path, 10_000, 6)


def test_added_tokens_at_the_byte_level(tmp_path):
    pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    compare(byte_level(pre_tokenizer, added=added_tokens(False)), tmp_path, 10_000, 7)


@pytest.mark.parametrize(
    "behavior", ["removed", "isolated", "merged_with_previous", "merged_with_next", "contiguous"])
@pytest.mark.parametrize("invert", [True, False])
def test_split_behaviors(tmp_path, behavior, invert):
    pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(r"\p{L}+|[\r\n]|a*"), behavior, invert=invert),
        pre_tokenizers.Digits(individual_digits=invert),
        pre_tokenizers.ByteLevel(add_prefix_space=invert)])
    compare(byte_level(pre_tokenizer), tmp_path, 2_000, 8)


def test_byte_level_normalizer(tmp_path):
    tokenizer = byte_level(pre_tokenizers.ByteLevel(add_prefix_space=False))
    tokenizer.normalizer = normalizers.ByteLevel()
    tokenizer.pre_tokenizer = pre_tokenizers.Split("\u0120", "merged_with_next")
    tokenizer.add_tokens([AddedToken("\u00e9", normalized=True), AddedToken("abc d", normalized=True)])
    compare(tokenizer, tmp_path, 5_000, 9)


def random_merges(rng):
    """Merges in no order that training would give: overlapping, ranked at random, some given twice."""
    tokens = ["a", "b", "c", "\u2581", "<", "0", "x", "4", "1", ">"]
    merges = []
    while len(merges) < 40:
        pair = [rng.choice(tokens), rng.choice(tokens)]
        if len("".join(pair)) < 12:
            tokens.append("".join(pair))
            merges.append(pair)
    rng.shuffle(merges)
    names = ["<unk>"] + [f"<0x{b:02X}>" for b in range(256)] + tokens + ["<0x41>"]
    vocab = {t: i for i, t in enumerate(dict.fromkeys(names))}
    return Tokenizer.from_str(json.dumps({
        "added_tokens": [], "normalizer": None, "pre_tokenizer": None, "post_processor": None,
        "decoder": {"type": "ByteFallback"},
        "model": {"type": "BPE", "vocab": vocab, "merges": merges, "byte_fallback": True,
                  "unk_token": "<unk>", "fuse_unk": True}}))


def test_random_merges(tmp_path):
    rng = random.Random(11)
    for _ in range(150):
        tokenizer = random_merges(rng)
        inputs = ["".join(rng.choice("abc\u2581abcA<0x41>d") for _ in range(rng.randrange(60))) for _ in range(100)]
        file = tmp_path / "tokenizer.json"
        tokenizer.save(str(file))
        want = [e.ids for e in tokenizer.encode_batch(inputs)]
        assert [a["ids"] for a in ask(file, inputs, tmp_path)] == want


def test_without_decoder(tmp_path):
    compare(byte_fallback(pre_tokenizers.Metaspace()), tmp_path, 2_000, 10)
