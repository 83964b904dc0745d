"""Training of vocabularies, made independent of hash seeds, threads and machines.

The libraries' trainers are not: HF's numbers the continuation characters in the order of a randomly
seeded hash map and breaks ties between merges by these numbers, and SentencePiece's sums depend on
the number of threads.
"""

import io
import itertools
from collections import Counter
from collections.abc import Iterable, Iterator

import sentencepiece
import tokenizers
from tokenizers import models, normalizers, pre_tokenizers, trainers

from mobilebert_jax.config import schema
from mobilebert_jax.config.schema import InputError

MOST_WORD_CHARACTERS = 200
"""BERT makes longer words one [UNK]."""
_PRIVATE_USE = 0xF0000
_ALPHABET = 256
_TRAINING_THREADS = 4
_LINE_CHARACTERS = 4000
# SentencePiece drops lines of more bytes than this; four bytes are the most a character takes.
_LINE_BYTES = 4 * _LINE_CHARACTERS + 1


def bert_normalizer(lowercase: bool) -> normalizers.Normalizer:
    """Returns BERT's text clean-up; uncased vocabularies also lose their accents."""
    return normalizers.BertNormalizer(
        clean_text=True, handle_chinese_chars=True, strip_accents=lowercase, lowercase=lowercase
    )


def train_wordpiece(
    lines: Iterable[str], settings: schema.Tokenizer, special: list[str]
) -> list[str]:
    """Returns the pieces of a WordPiece vocabulary in the order of their ids.

    `special` comes first, then single characters, then merges from the most frequent on, as HF's
    trainer chooses them. At most a quarter of the vocabulary goes to single characters, but up to
    256 in any case; words with rarer ones take no part. Raises InputError if the text has no word.
    """
    words = _count_words(lines, settings.lowercase)
    forms: Counter[str] = Counter()
    for word, count in words.items():
        for form in _forms(word):
            forms[form] += count
    ranked = sorted(forms, key=lambda form: (-forms[form], form))
    most = min(settings.vocab_size - len(special), max(_ALPHABET, settings.vocab_size // 4))
    alphabet = sorted(ranked[:most])
    if not alphabet:
        raise InputError("the text for training the vocabulary holds no words")
    # One private character a form, numbered in sorted order: the trainer numbers characters in the
    # order of their code points, so that nothing is left to a hash map.
    symbols = {form: chr(_PRIVATE_USE + i) for i, form in enumerate(alphabet)}
    spelling = {symbol: form for form, symbol in symbols.items()}
    encoded = {
        "".join(symbols[form] for form in _forms(word)): count
        for word, count in words.items()
        if all(form in symbols for form in _forms(word))
    }
    library = tokenizers.Tokenizer(models.BPE())
    library.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    trainer = trainers.BpeTrainer(
        vocab_size=settings.vocab_size - len(special), min_frequency=2, show_progress=False
    )
    library.train_from_iterator(_repeated(encoded), trainer)
    merged = sorted(library.get_vocab().items(), key=lambda item: item[1])
    pieces = [_spell(piece, spelling) for piece, _ in merged]
    return special + [piece for piece in pieces if piece not in special]


def train_sentencepiece(
    lines: Iterable[str], settings: schema.Tokenizer, special: list[str]
) -> bytes:
    """Returns a SentencePiece model file whose ids 0, 1, ... are `special` (pad, unk, cls, sep,
    mask); the last three are control symbols, which no text can spell.

    Raises InputError if there is no text, or more characters than `settings.vocab_size` can hold.
    """
    pieces = (
        line[i : i + _LINE_CHARACTERS]
        for line in lines
        for i in range(0, len(line), _LINE_CHARACTERS)
    )
    first = next(pieces, None)
    if first is None:
        raise InputError("the text for training the vocabulary is empty")
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=itertools.chain([first], pieces),
            model_writer=model,
            model_type=settings.kind.removeprefix("sentencepiece_"),
            vocab_size=settings.vocab_size,
            hard_vocab_limit=False,
            character_coverage=0.9995,
            normalization_rule_name="nmt_nfkc_cf" if settings.lowercase else "nmt_nfkc",
            max_sentence_length=_LINE_BYTES,
            num_threads=_TRAINING_THREADS,
            pad_id=0,
            unk_id=1,
            bos_id=-1,
            eos_id=-1,
            pad_piece=special[0],
            unk_piece=special[1],
            control_symbols=special[2:],
            minloglevel=2,
        )
    except RuntimeError as error:
        raise InputError(
            f"tokenizer.kind={settings.kind!r} with tokenizer.vocab_size={settings.vocab_size} "
            f"cannot be trained on this text: {error}"
        ) from None
    return model.getvalue()


def _count_words(lines: Iterable[str], lowercase: bool) -> Counter[str]:
    """Returns how often each word of BERT's pre-tokeniser occurs.

    Longer ones than BERT tokenises take no part: the trainer's time grows with the square of a
    word's length, and a vocabulary would hold pieces that no text can be cut into.
    """
    spaced: Counter[str] = Counter()
    for line in lines:
        spaced.update(line.split())
    normalizer, pre_tokenizer = bert_normalizer(lowercase), pre_tokenizers.BertPreTokenizer()
    words: Counter[str] = Counter()
    for text, count in spaced.items():
        for word, _ in pre_tokenizer.pre_tokenize_str(normalizer.normalize_str(text)):
            if len(word) <= MOST_WORD_CHARACTERS:
                words[word] += count
    return words


def _forms(word: str) -> Iterator[str]:
    """Yields the one-character pieces of a word: `a`, `##b`, `##c`."""
    yield word[0]
    for character in word[1:]:
        yield f"##{character}"


def _spell(piece: str, spelling: dict[str, str]) -> str:
    first, *others = (spelling[symbol] for symbol in piece)
    return first + "".join(form.removeprefix("##") for form in others)


def _repeated(words: dict[str, int]) -> Iterator[str]:
    """Yields each word as often as it occurs, in lines of bounded length."""
    for word, count in words.items():
        for start in range(0, count, 10_000):
            yield " ".join([word] * min(10_000, count - start))
