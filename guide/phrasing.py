"""Other ways to type a question, and questions that nobody can answer.

Pure but for the random numbers handed in. `vary` keeps the meaning; `strange` destroys it.
"""

import random
import re
import string

from questions import Questions

FRAMES = {
    re.compile(r"How do I (?!do )([^,?]+)\?$"): (
        "How do I {}?|How can I {}?|How to {}?|How should I {}?|How do you {}?|How would I {}?|"
        "Tell me how to {}.|Show me how to {}.|I want to {}.|What do I do to {}?|How does one {}?|"
        "Can you tell me how to {}?|What must I do to {}?|Is there a way to {}?|Can I {}?"
    ),
    re.compile(r"(?:What is|Explain) ([^,?:]+)[?.]$"): (
        "What is {}?|What's {}?|Tell me what {} is.|Tell me about {}.|What exactly is {}?|Explain {}.|"
        "Can you explain {}?|Describe {}.|What is meant by {}?|I want to know what {} is.|And what is {}?"
    ),
    re.compile(r"Where is ([^,?]+)\?$"): (
        "Where is {}?|Where's {}?|Where do I find {}?|Where can I find {}?|Tell me where {} is.|"
        "Where is {} located?"
    ),
    re.compile(r"Where are ([^,?]+)\?$"): (
        "Where are {}?|Where do I find {}?|Where can I find {}?|Tell me where {} are.|Where does it keep {}?"
    ),
    re.compile(r"Which key ([^,?]+)\?$"): (
        "Which key {}?|What key {}?|Which button {}?|Tell me which key {}.|Which keys {}?"
    ),
    re.compile(r"What does ([^,?]+) do\?$"): (
        "What does {} do?|What is {} for?|What will {} do?|Tell me what {} does.|What is the use of {}?"
    ),
    re.compile(r"What does ([^,?]+) mean\?$"): (
        "What does {} mean?|What's the meaning of {}?|What is the meaning of {}?|What does the word {} mean?|"
        "What does {} stand for?|Tell me what {} means.|What do you mean by {}?"
    ),
    re.compile(r"What happens (?:if|when) ([^,?]+)\?$"): (
        "What happens if {}?|What happens when {}?|What if {}?|What will happen if {}?"
    ),
    re.compile(r"(?:Which|What) ((?!is|does|do|are|happens|can|should|if|to|did|about)[^,?]+)\?$"): (
        "Which {}?|What {}?|Tell me which {}."
    ),
}
"""How to find the part that may stand in other sentences too, and those sentences."""

CONTRACTIONS = (
    ("does not", "doesn't"),
    ("do not", "don't"),
    ("is not", "isn't"),
    ("cannot", "can't"),
    ("What is", "What's"),
)
OPENINGS = (
    "Please: ",
    "Hi, ",
    "Hello, ",
    "Hey, ",
    "Question: ",
    "Tell me: ",
    "Sorry, ",
    "So, ",
    "Now, ",
    "One more question: ",
)
ENDINGS = (
    ", please",
    " please",
    " in Footplate",
    " with Footplate",
    " here",
    ", thanks",
    " now",
    " exactly",
    " again",
)
SMALL_WORDS = tuple(
    """
    a an the i you me my your it its is are do does did can could should would will what which who whose where
    when why how to of in on at for from with without and or not no if as be have has must may so there this
    that these those give show tell list about use up down
    """.split()  # noqa: SIM905 - a list of words reads as a text
)
SIGNS = string.digits + string.punctuation + "äöüßéñłśżдяжп你好嗎"


def vary(question: str, chance: random.Random) -> str:
    """Return the question as somebody else might type it."""
    if chance.random() < 0.35:
        question = _reframe(question, chance)
    if chance.random() < 0.10:
        question = _contract(question)
    if chance.random() < 0.08:
        question = _drop_article(question, chance)
    if chance.random() < 0.12:
        question = _surround(question, chance)
    if chance.random() < 0.10:
        question = _mistype(question, chance)
    return _restyle(question, chance)


def strange(questions: Questions, chance: random.Random) -> str:
    """Return a question without an answer: a listed one, a known one with foreign words, or noise."""
    kind = chance.random()
    if kind < 0.55:
        return vary(chance.choice(questions.unknown.ask), chance)
    if kind < 0.90:
        entry = chance.choice(questions.known)
        return vary(_estrange(chance.choice(entry.ask), questions.words, chance), chance)
    return _restyle(_noise(questions.words, chance), chance)


def _reframe(question: str, chance: random.Random) -> str:
    for pattern, sentences in FRAMES.items():
        if found := pattern.match(question):
            return chance.choice(sentences.split("|")).format(found[1])
    return question


def _contract(question: str) -> str:
    for full, short in CONTRACTIONS:
        question = question.replace(full, short)
    return question


def _drop_article(question: str, chance: random.Random) -> str:
    return question.replace(chance.choice((" the ", " a ", " an ", " my ")), " ", 1)


def _surround(question: str, chance: random.Random) -> str:
    if chance.random() < 0.5:
        return chance.choice(OPENINGS) + question
    mark = question[-1] if question[-1] in ".?!" else ""
    return question.removesuffix(mark) + chance.choice(ENDINGS) + mark


def _mistype(question: str, chance: random.Random) -> str:
    """Drop, double or swap one letter inside a long word."""
    places = [found.start() for found in re.finditer(r"(?<=\w\w)\w(?=\w\w)", question)]
    if not places:
        return question
    place = chance.choice(places)
    letter, following = question[place], question[place + 1]
    mistake = chance.choice((following, letter + letter + following, following + letter))
    return question[:place] + mistake + question[place + 2 :]


def _restyle(question: str, chance: random.Random) -> str:
    """Change case and punctuation as people do who type quickly."""
    style = chance.random()
    if style < 0.30:
        question = question.lower()
    elif style < 0.33:
        question = question.upper()
    elif style < 0.40:
        question = question[:1].lower() + question[1:]
    ending = chance.random()
    if ending < 0.30:
        question = question.rstrip(".?!") or question
    elif ending < 0.40:
        question = question.rstrip(".?!") + chance.choice("?.!")
    elif ending < 0.43:
        question += chance.choice(("?", "??", "!", " "))
    return question


def _estrange(question: str, words: tuple[str, ...], chance: random.Random) -> str:
    """Put foreign words in the place of the known ones: all of them, or now and then all but one."""
    pieces = re.split(r"([\w./~$-]*\w)", question)
    own = [place for place, piece in enumerate(pieces) if _is_own_word(piece)]
    if len(own) > 1 and chance.random() < 0.4:
        own.remove(chance.choice(own[:-1]) if chance.random() < 0.8 else own[-1])
    for place in own:
        pieces[place] = _foreign_word(words, chance)
    return "".join(pieces) if own else _noise(words, chance)


def _is_own_word(piece: str) -> bool:
    return piece[-1:].isalnum() and piece.lower() not in SMALL_WORDS


def _foreign_word(words: tuple[str, ...], chance: random.Random) -> str:
    return chance.choice(words) if chance.random() < 0.75 else _letters(chance)


def _noise(words: tuple[str, ...], chance: random.Random) -> str:
    """Return small words without a question, a long text, a heap of words, or letters and signs."""
    kind = chance.random()
    if kind < 0.35:
        return " ".join(chance.choices(SMALL_WORDS, k=chance.randint(1, 4)))
    if kind < 0.40:
        return " ".join(chance.choices(words + SMALL_WORDS, k=chance.randint(20, 150)))
    if kind < 0.70:
        return " ".join(chance.choices(words, k=chance.randint(1, 6)))
    if kind < 0.90:
        return " ".join(_letters(chance) for _ in range(chance.randint(1, 4)))
    return "".join(chance.choices(SIGNS, k=chance.randint(1, 8)))


def _letters(chance: random.Random) -> str:
    """Return something like a word; half of the time one can pronounce it."""
    if chance.random() < 0.5:
        return "".join(chance.choices(string.ascii_lowercase, k=chance.randint(2, 8)))
    syllables = range(chance.randint(1, 4))
    return "".join(chance.choice("bcdfghklmnprstvz") + chance.choice("aeiouy") for _ in syllables)
