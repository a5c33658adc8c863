"""Lines of every kind of Unicode that tokenizers disagree on, made by one rule per line."""

from __future__ import annotations

import itertools

_MARKS = "\u0301\u0323\u0327\u0308\u0338\u035c\u20dd\u05b0\u064b\u0e38"
_ZERO_WIDTH = "\u200b\u200c\u200d\u2060\ufeff\u034f\u180e\u061c"
_SPACES = (
    "\t\n\v\f\r\x1c\x1d\x1e\x1f \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007"
    "\u2008\u2009\u200a\u2028\u2029\u202f\u205f\u3000"
)
_DIRECTION = "\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
_IDEOGRAPHS = (
    "\u3400\u4dbf\u4e00\u9fff\uf900\ufaff\U00020000\U0002a6dd\U0002a700\U0002b740\U0002f800"
)


def nasty_lines() -> list[str]:
    """A few hundred lines; some hold line breaks of one kind or another, none a lone surrogate."""
    lines = ["", " ", "\0", "\ufffd", "a\0b", "a\ufffdb", "[SEP]", "a [MASK]b", "[UNK][PAD] [CLS]"]
    lines += ["##a ##", "a" * 100, "a" * 101, "a" * 10_000, "é" * 10_000, "," * 10_000]
    lines += ["\u4e2d" * 10_000, "e" + "\u0301" * 10_000]
    # Marks in every order after letters that do or do not compose with them.
    for letter in ("e", "A", "o", "\u1e69", "\u0627", " ", ",", ""):
        for marks in itertools.permutations(_MARKS[:4], 3):
            lines.append(f"x{letter}{''.join(marks)}y")
        lines += [f"x{letter}{mark}y" for mark in _MARKS]
    for character in (*_ZERO_WIDTH, *_SPACES, *_DIRECTION, *_IDEOGRAPHS):
        lines += [
            character,
            f"ab{character}cd",
            f"{character}ab, {character}",
            f"é{character}\u0301",
        ]
    lines += [f"ab{chr(code)}cd" for code in range(0x00, 0xA1)]
    # Right to left, with points and marks.
    lines += ["שָׁלוֹם עוֹלָם", "السَّلَامُ عَلَيْكُمْ", "abc \u202eאבג\u202c def", "١٢٣ ۴۵۶"]
    # Emoji: joined, with selectors, skin, flags, key caps, tags.
    lines += [
        "👩\u200d👩\u200d👧\u200d👦",
        "❤\ufe0f ❤\ufe0e ❤",
        "👍🏽👍",
        "🇫🇷🇩🇪",
        "1\ufe0f\u20e3#\ufe0f\u20e3",
    ]
    lines += [
        "🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f",
        "\U000e0100葛\U000e0100",
    ]
    # Case: letters whose lower case is longer, depends on the context, or is special.
    lines += ["İstanbul ISPARTA ıI", "ΟΔΟΣ ΟΔΟΣ. ΣΑΣ Σ ΑΣΑ", "ẞ ß ſ", "ǅ ǆ Ǆ", "K Å Ω", "ᏴᏰ Ꭰꭰ"]
    # Compatibility forms: full width, ligatures, superscripts, fractions, Hangul in both forms.
    lines += [
        "Ｆｕｌｌ　ｗｉｄｔｈ，！",
        "ﬁ ﬀ ﬃ ﬅ",
        "x² ½ ①Ⅷ",
        "한글 \u1112\u1161\u11ab\u1100\u1173\u11af",
        "ｶﾞ が か\u3099",
    ]
    lines += [
        "ﷺ",
        "㍿ ㎏",
        "ŉ",
        "\u00adco\u00adop",
        "a\u2011b\u2012c\u2013d\u2014e",
        "“a” ‘b’ «c» …",
    ]
    # Private use, non-characters, unassigned code points.
    lines += [f"ab{character}cd" for character in "\ue000\uf8ff\U000f0000\U0010fffd"]
    lines += [f"ab{character}cd" for character in "\ufdd0\ufffe\uffff\U0001ffff\U0010ffff"]
    lines += [f"ab{character}cd" for character in "\u0378\u0530\U0002fffd\U000e0080"]
    # Scripts with marks that advance, that stand before their letter, and none between words.
    lines += [
        "हिन्दी में पाठ",
        "தமிழ்",
        "ภาษาไทยไม่มีช่องว่าง",
        "ខ្មែរ",
        "བོད་སྐད་",
        "မြန်မာ",
        "日本語の文章。改行なし！",
    ]
    lines += ["$^`~<>|+=", "¿qué? ¡sí!", "a_b-c'd\"e", "٪ ؟ ، ؛", "।॥", "、。〈〉"]
    return lines
