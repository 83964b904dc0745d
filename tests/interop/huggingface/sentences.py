# ruff: noqa: RUF001 - ambiguous characters are what tokenizers disagree about
"""Sentences of three languages, put together from words, with what tokenizers disagree about."""

import random

_WORDS = {
    "english": (
        "the Film was unbelievably GOOD , don't naïve café ﬁnally x-ray U.S. 3.14 e-mail O'Neill "
        "rock'n'roll 1,000 £5 €9 ½ ² ﬀ Ⅳ ß İ ſ 10% #1 @home (brackets) […] “quotes” ‘single’ — – "
        "end. end! end? re-entry co\u00adoperate zero\u200bwidth 😀 👩\u200d👧 e\u0301clair 東京 "
        "[E1]"
    ),
    "japanese": (
        "東京は日本の首都である。 私は学生です 吾輩は猫である。名前はまだ無い。 ﾊﾝｶｸｶﾅ "
        "と全角ＡＢＣ１２３ コンピュータ・サイエンス 「引用」 今日はいい天気ですね！ ①②③ ㌔ ㍿ "
        "か\u3099 は\u309a ヴァイオリン 東京都に行った スーパーマーケット １２３４円 です。 ｱｲｳ "
        "〜 … 株式会社 人工知能の研究 WikiPedia2018年"
    ),
    "persian": (
        "می\u200cخواهم کتاب\u200cها را بخوانم . سلام دنیا ، این یک جملهٔ آزمایشی است ؟ "
        "۱۲۳۴ ك ي ة أ إ خانه\u200cی بزرگ نمی\u200cدانم آب و هوا تهران پایتخت ایران است ! "
        "بِسْمِ اللَّهِ لا ﻻ ـــ مرحبا"
    ),
}


def of(language: str, count: int = 200) -> list[str]:
    """Returns `count` sentences, the same at every call."""
    generator = random.Random(language)
    words = _WORDS[language].split(" ")
    found = []
    for _ in range(count):
        space = " " if language != "japanese" or generator.random() < 0.2 else ""
        chosen = generator.choices(words, k=generator.randint(1, 9))
        found.append(space.join(chosen) + generator.choice(["", "", " ", "  ", "\t", "\u3000"]))
    return found
