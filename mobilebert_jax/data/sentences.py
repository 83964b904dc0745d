"""Sentence borders by rule, losing no text.

A border is a run of terminators, with the quotes or brackets that close after it, where

1. the terminator is Latin (`.`, `!`, `?`, `…`), white space follows, and the next word does not
   begin with a lower-case letter. Scripts without case (Arabic, Hebrew, Han, ...) always pass; or
2. the terminator belongs to another script (`。！？｡` Chinese and Japanese, `؟` and `۔` Arabic,
   Persian and Urdu, `।` and `॥` Hindi, `።` Amharic, `։` Armenian). No white space is needed.
   Inside Japanese brackets (`「…。」と`) the sentence goes on.

A single full stop is no border after an abbreviation that wants a word after it (`Dr.`, `vs.`,
`e.g.`), after one that wants a number if it has one (`No. 5`), after the number of a list item, or
after an initial or company form (`J. R. Oppen`, `Ford Co.`) unless the next word seldom is a name
(`in the U.S. The`).
"""

# ruff: noqa: RUF001, RUF002 -- the characters that look alike are what this file is about

import re


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_CLOSERS = "\"'”’»›)\\]}*"
_OPENERS = "\"'“‘«‹(\\[{„*¿¡"
_LATIN, _HAN, _OTHER = ".!?…", "。！？｡", "؟۔।॥።։"
_BORDER = re.compile(
    # One set of first characters lets `re` skip quickly to the next candidate; the look-behinds
    # let a run of terminators be tried once, not once for each of its characters.
    rf"[{_LATIN}{_HAN}{_OTHER}](?:"
    rf"(?<=[{_LATIN}])(?<![{_LATIN}]{{2}})[{_LATIN}]*+[{_CLOSERS}]*+\s++(?=[{_OPENERS}]*(\S))"
    rf"|(?<=[{_HAN}])(?<![{_HAN}]{{2}})[{_HAN}]*+(?:[”’)）]*+(?![」』】〉》\s])|[」』】〉》”’)）]*+\s++)"
    rf"|(?<=[{_OTHER}])(?<![{_OTHER}]{{2}})[{_OTHER}]*+[»”’\")\]]*+\s*+)"
)

_WANT_A_WORD = _words("""
    mr mrs ms messrs mx dr prof rev hon st ste mt ft gen col maj capt cpt cmdr lt sgt cpl pvt adm
    gov sen rep pres amb supt insp det fr sr br mme mlle wm geo chas jos thos dept univ b d v vs cf
    ca approx viz i.e e.g ie eg esp resp incl excl aka a.k.a lit trans ed eds née
""")
_WANT_A_NUMBER = _words("""
    no nos vol vols fig figs eq eqs eqn eqns sec secs ch chap pp p pg pt par art cl op ref refs tab
    thm lem prop app jan feb mar apr jun jul aug sep sept oct nov dec ver c r fl
""")
_WANT_A_NAME = _words("jr co inc ltd corp bros")
_SELDOM_NAMES = _words("""
    the this these those that there it its he she they we his her their our in on at by for from to
    with as of and but or however although while when where after before during since because if
    then also some many most one other another each both all such no not is are was were what who
    how why so yet an
""")
_NEXT_WORD = re.compile(r"\w+")


def split(line: str) -> list[str]:
    """Returns the sentences of `line` without the white space around them.

    No other character is lost: the pieces joined, white space apart, are the line.
    """
    pieces, start = [], 0
    for match in _BORDER.finditer(line):
        first = match.group(1)
        if first is not None and (first.islower() or _goes_on(line, start, match)):
            continue
        pieces.append(line[start : match.end()].strip())
        start = match.end()
    pieces.append(line[start:].strip())
    return [piece for piece in pieces if piece]


def _goes_on(line: str, start: int, match: re.Match[str]) -> bool:
    """Whether the full stop of `match` belongs to an abbreviation or initial before it."""
    stop = match.start()
    if match.end() - stop > 1 and not line[stop + 1].isspace():  # "?", "..." or a closing quote
        return False
    if line[stop] != ".":
        return False
    word = line[max(start, stop - 24) : stop].rsplit(None, 1)[-1:]
    if not word:
        return False
    name = word[0].lstrip("\"'“‘«‹([{„*—–-")
    lower = name.lower()
    if lower in _WANT_A_WORD or (name.isdigit() and not line[start : stop - len(name)].strip()):
        return True  # the second: the number of a list item
    if lower in _WANT_A_NUMBER and match.group(1).isdigit():
        return True
    initial = name[-1:].isupper() and (len(name) == 1 or name[-2] in ".-")
    if not initial and lower not in _WANT_A_NAME:
        return False
    following = _NEXT_WORD.match(line, match.end())
    return following is not None and following.group().lower() not in _SELDOM_NAMES
