"""The same as datatrove_minhash.py, but for words that spaces part instead of spaCy, which is most of what that costs.

    python datatrove_spaces.py CORPUS.jsonl OUTPUT_DIR

That is its default for no language. All punctuation has become spaces by then, so the words are about the same.
"""

import sys

from datatrove.utils.word_tokenizers import WordTokenizer
from datatrove_minhash import main


class Spaces(WordTokenizer):
    def word_tokenize(self, text: str) -> list[str]:
        return text.split()

    def sent_tokenize(self, text: str) -> list[str]:
        return [text]

    def span_tokenize(self, text: str) -> list[tuple[int, int]]:
        return [(0, len(text))]


if __name__ == "__main__":
    main(*sys.argv[1:], words=Spaces())
