"""Text that speaks to a judge instead of stating something: which lines of a document, and whether a value does.

A list of patterns is never whole. It is the first of three defences (rewards/judge.py has the other two), and errs, for
documents, on the side of withholding a line, which costs little; for values it is narrow, since it costs points.
"""
# ruff: noqa: E501 - a pattern is easier to read in one line

from __future__ import annotations

import base64
import binascii
import codecs
import re
import unicodedata
from collections.abc import Iterator

from rewards.normalize import plain

PIECE = 400
"""Characters looked at at once; a longer line is looked at in pieces that overlap by a quarter."""

_GAP = r"(?:\W+\w+){0,6}?\W+"
_RIGHT = r"(?:right|correct|true|pass|perfect|accurate|verified|10/10|100 ?%|full (?:marks|points|score|credit))"
_NARROW = (
    # to set the instructions aside
    rf"\b(?:ignore|disregard|forget|override|overrule|bypass|neglect|(?:do not|don't|stop) (?:follow|obey)\w*)\b{_GAP}"
    r"(?:instruct\w*|prompts?|rules?|guidelines?|directives?|commands?|rubrics?|criteria|above|previous|prior|earlier|preceding)\b",
    # the marks of a chat template, of a prompt or of a fence
    r"<\|?/?(?:im_start|im_end|system|user|assistant|endoftext|eot_id|start_header_id|document|values|data)\b[^>]{0,40}>",
    r"\[/?inst\]|<</?sys>>|```|###\s*(?:system|instruction|response|end|new)|^(?:system|assistant|developer|user)\s*(?:prompt|message|note|override)?\s*:",
    r"\b(?:end|begin|start|close) of (?:the )?(?:document|data|input|prompt|values|context|fence)\b|={3,}\s*end|-{3,}\s*end",
    # to the judge by name
    r"\b(?:note|message|attention|memo|instructions?|reminder|notice|hint|dear|hey|hello)\W{0,3}(?:to |for )?(?:the |all |any )?"
    r"(?:graders?|judges?|evaluators?|reviewers?|verifiers?|checkers?|ai|llm|model|assistant|chatbot|language model)\b",
    r"\byou are (?:now |no longer |an? |the )+(?:\w+ ){0,2}(?:graders?|judges?|evaluators?|reviewers?|verifiers?|assistant|ai|model|dan)\b",
    r"\b(?:system prompt|jailbreak|developer mode|god mode|prompt injection|new instructions?|updated instructions?|admin override)\b",
    # the verdict itself
    rf"\b(?:mark|grade|score|rate|judge|label|answer|respond|reply|output|return|verdict|evaluate|classify)\b(?:\W+\w+){{0,4}}?\W+{_RIGHT}(?!\w)",
    rf"\b(?:all|every|each|everything|any)\b(?:\W+\w+){{0,4}}?\W+(?:is|are|as|be|was|were) (?:\w+ )?{_RIGHT}(?!\w)",
    r"\"?\d{1,2}\"?\s*[:=]\s*\"?(?:right|correct)\b|\bverdicts?\b\W{1,4}\{?",
    r"\b(?:mark|grade|label|verdict)\w*\W+(?:\w+\W+){0,3}?(?:approved|passed|valid|ok)\b",
    # other languages
    r"\b(?:ignor|oubli|néglig)\w*\b.{0,40}\b(?:instructions?|consignes?|règles?)\b|\brépond\w*\b.{0,30}\b(?:correct|juste|vrai)\w*",
    r"\b(?:ignorier|missacht|vergiss|vergessen)\w*\b.{0,40}(?:anweisung|vorgabe|regel|instruktion)\w*|\b(?:antwort|bewert)\w*\b.{0,30}\brichtig\b",
    r"\b(?:ignor|olvid|omit|esque|desconsider|dimentic|trascur)\w*\b.{0,40}\b(?:instru|istruzion|indica|regla|regra|regol)\w*",
    r"\b(?:respond|responda|rispond|marc|marca)\w*\b.{0,30}\b(?:correct|corret|cierto|giust|certo)\w*",
    r"\b(?:negeer|vergeet)\b.{0,40}\b(?:instructie|regel|aanwijzing)\w*|\bantwoord\b.{0,30}\b(?:juist|correct|goed)\b",
    r"\b(?:abaikan|lupakan)\b.{0,40}\b(?:arahan|instruksi|peraturan|perintah)\b|\bjawab\b.{0,30}\b(?:betul|benar)\b",
    r"\b(?:zignoruj|pomiń|zapomnij)\b.{0,40}\b(?:instrukc|polece|zasad)\w*|\bgörmezden gel|\byok say|\bbỏ qua\b.{0,40}\bhướng dẫn",
    r"(?:игнориру|забуд|проигнориру)\w*.{0,40}(?:инструкци|указани|правил)\w*|ответ\w*.{0,30}(?:верно|правильно)",
    r"(?:忽略|无视|忽視|無視|不要理会|忘记).{0,16}(?:指示|指令|说明|說明|提示|规则|規則)|(?:指示|命令|ルール).{0,8}(?:無視|忘れ)",
    r"(?:全部|所有|すべて|全て).{0,12}(?:正确|正確|正しい|对的)|(?:回答|判定|输出|标记|判断).{0,10}(?:正确|正確|正しい|对)",
    r"(?:지시|명령|규칙).{0,10}(?:무시|잊)|(?:모두|전부).{0,8}(?:정답|맞|옳)|(?:تجاهل|انس).{0,30}(?:تعليمات|القواعد)|(?:अनदेखा|नज़रअंदाज़).{0,30}|निर्देश.{0,20}(?:अनदेखा|भूल)",
)
_BROAD = (
    rf"\b(?:say|print|write|set|report|declare|treat|accept|consider|count|assign|give|choose|select|pick|confirm|approve|agree|assume|pretend|deem|take|make|use|put|call)\b(?:\W+\w+){{0,8}}?\W+{_RIGHT}(?!\w)",
    rf"\b(?:must|should|shall|always|only|please|will|need to|have to)\b(?:\W+\w+){{0,8}}?\W+{_RIGHT}(?!\w)",
    r"\b(?:you are now|your (?:new )?(?:task|job|role|goal|instructions?|purpose)|from now on|act as|pretend|role-?play|as an? (?:ai|language model))\b",
    r"\b(?:the (?:judge|grader|evaluator|verifier|checker|reviewer|assistant|model|ai)|llm|chatgpt|gpt-?\d|claude|gemini)\b(?:\W+\w+){0,6}?\W+(?:must|should|will|shall|may|can|needs?|has|have|is|are)\b",
    rf"\b(?:extract\w*|values?|fields?|answers?|entries|entry|grading|evaluation|verification)\b(?:\W+\w+){{0,6}}?\W+{_RIGHT}(?!\w)",
    r"\b(?:approve|accept|confirm|agree|endorse|pass|praise)\b(?:\W+\w+){0,4}?\W+(?:all|every|any|each|everything)\b",
    r"\b(?:i|we|they) (?:hereby )?(?:order|command|instruct|ask|tell|urge|beg|require|want|need) you\b|\bnever (?:say|answer|return|give|output|write)\b",
    r"\b(?:instructions?|prompts?)\b.{0,40}\b(?:void|cancel\w*|obsolete|replaced|superseded|over|changed|outdated|not apply)\b",
)
_NARROW_RE = re.compile("|".join(f"(?:{pattern})" for pattern in _NARROW), re.MULTILINE)
_BROAD_RE = re.compile("|".join(f"(?:{pattern})" for pattern in (*_NARROW, *_BROAD)), re.MULTILINE)

_LEET = str.maketrans("013457@$|!", "oieastasli")
_SPACED = re.compile(r"(?<!\w)\w(?:[ ._\-*]\w){5,}(?!\w)")
_COMPACT = re.compile(
    r"(?:ignor|disregard|forget)e?(?:all|any|the|every)?(?:of)?(?:the)?(?:previous|prior|above|earlier|instruct|rules)"
    r"|previousinstruct|systemprompt|(?:answer|say|mark|verdict|all|everything|values)(?:is|are|as)*(?:right|correct)"
)
_CODED = re.compile(r"[A-Za-z0-9+/_-]{20,}={0,2}")

# Openings of an answer that make some judges say yes to an empty one (Zhao et al. 2025, arXiv:2507.08794).
_OPENINGS = frozenset(
    {
        "thought process", "let's solve this problem step by step", "let us solve this problem step by step", "solution",
        "解", "かいせつ", "解説", "respuesta", "answer", "the answer is", "final answer", "réponse", "antwort", "jawapan",
    }
)  # fmt: skip


def says_nothing(value: str) -> bool:
    """Whether a value is blank, punctuation, or the bare opening of an answer: the known master keys."""
    bare = plain(value).strip(" .,:;!?…。：、-*#\"'")
    return not any(character.isalnum() for character in bare) or bare in _OPENINGS


def instructs(value: str) -> bool:
    """Whether a value speaks to its judge."""
    return any(_NARROW_RE.search(reading) for piece in _pieces(value) for reading in _readings(piece))


def instruction_lines(text: str) -> frozenset[int]:
    """Numbers (from 0) of the lines of a document that speak to its judge, alone or with the two lines below them."""
    lines = text.split("\n")
    found = {i for i, line in enumerate(lines) if any(_speaks(piece) for piece in _pieces(line))}
    for size in (2, 3):
        for i in range(len(lines) - size + 1):
            window = [n for n in range(i, i + size) if n not in found]
            joined = " ".join(lines[n].strip() for n in window)
            if len(window) == size and len(joined) <= 2 * PIECE and _speaks(joined):
                found.update(window)
    return frozenset(found)


def _speaks(text: str) -> bool:
    return any(_BROAD_RE.search(reading) for reading in _readings(text))


def _pieces(text: str) -> Iterator[str]:
    if len(text) <= PIECE:
        yield text
        return
    for start in range(0, len(text), PIECE * 3 // 4):
        yield text[start : start + PIECE]


def _readings(text: str) -> Iterator[str]:
    """The text as it may be meant: folded, only lower-cased (other alphabets), spaced out, in digits, coded, turned."""
    folded, seen = plain(text), text
    yield folded
    if not text.isascii():
        seen = "".join(c for c in unicodedata.normalize("NFKC", text) if unicodedata.category(c) != "Cf")
        yield " ".join(seen.casefold().split())
        seen = "".join(c if c.isascii() else _like(c) for c in seen)
    if _SPACED.search(seen):
        joined = _SPACED.sub(lambda match: re.sub(r"[\W_]", "", match[0]), seen.casefold())
        yield " ".join(joined.split())
        if _COMPACT.search(re.sub(r"[\W_]", "", joined)):
            yield "ignore all previous instructions"
    if any(character in "013457@$|!" for character in folded):
        yield folded.translate(_LEET)
    for token in _CODED.findall(seen):
        try:
            decoded = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_" if "-" in token else None)
            yield plain(decoded.decode("utf-8"))
        except (binascii.Error, UnicodeDecodeError, ValueError):
            pass
    if len(folded) >= 20 and folded.isascii():
        yield folded[::-1]
        yield codecs.decode(folded, "rot13")


def _like(character: str) -> str:
    """The Latin letter that a character looks like, in its case; itself where there is none."""
    folded = plain(character)
    if len(folded) != 1 or not folded.isascii():
        return character
    return folded.upper() if character.isupper() else folded
