"""How the demo prints what it saw: pictures as shaded blocks, everything else as small tables."""

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
from demo_clients import PICTURES, TRUTH, Answers
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

SHADES = " ░▒▓█"
BRIGHTEST = 16
BAR_WIDTH = 40
BATCH_RANGES = ((1, 1), (2, 4), (5, 8), (9, 16), (17, 32))


def show_pictures(console: Console, answers: Answers, numbers: Sequence[int]) -> None:
    """Print pictures side by side, each with the answer and the truth under it."""
    grid = Table.grid(padding=(0, 2))
    grid.add_row(*(Group(drawing(PICTURES[number]), caption(answers, number)) for number in numbers))
    console.print(grid)


def drawing(picture: np.ndarray) -> Text:
    """An 8x8 picture as eight lines of sixteen shaded blocks."""
    shades = (picture.reshape(8, 8) * (len(SHADES) - 1) / BRIGHTEST).round().astype(int)
    return Text("\n".join("".join(SHADES[shade] * 2 for shade in row) for row in shades), no_wrap=True)


def caption(answers: Answers, number: int) -> Text:
    """What the model said of a picture, and whether it was right."""
    label, truth = int(answers.labels[number]), int(TRUTH[number])
    said = f"{label} ({answers.probabilities[number, label]:.3f})"
    return Text(f"{said} right\n", "green") if label == truth else Text(f"{said} no: {truth}\n", "red")


def show_accuracy(console: Console, rows: Iterable[tuple[str, str, Answers]]) -> None:
    """Print how many of the held-out pictures each model read rightly, over each protocol."""
    table = Table("model", "protocol", "requests", "right", "accuracy", title="Held-out pictures", title_justify="left")
    for model, protocol, answers in rows:
        right = int(np.sum(answers.labels == TRUTH))
        table.add_row(model, protocol, str(len(TRUTH)), str(right), f"{answers.accuracy:.1%}")
    console.print(table)


def show_texts(console: Console, texts: Sequence[str], counts: Iterable[tuple[int, int, float]]) -> None:
    """Print what the Python model counted in each text."""
    table = Table("text", "characters", "words", "seconds to read", title="text_stats", title_justify="left")
    for text, (characters, words, seconds) in zip(texts, counts, strict=True):
        table.add_row(text, str(characters), str(words), f"{seconds:.2f}")
    console.print(table)


def show_batches(console: Console, sizes: Counter[int], reasons: Counter[str]) -> None:
    """Print how many batches of each size ran, and why they were closed."""
    table = Table("rows in a batch", "batches", "", title="Batches of digits", title_justify="left")
    for first, last in BATCH_RANGES:
        batches = sum(count for rows, count in sizes.items() if first <= rows <= last)
        name = str(first) if first == last else f"{first} to {last}"
        table.add_row(name, str(batches), "█" * round(BAR_WIDTH * batches / sizes.total()))
    console.print(table)
    requests = sum(rows * batches for rows, batches in sizes.items())
    console.print(f"{requests} pictures in {sizes.total()} runs of the network: {requests / sizes.total():.1f} a run.")
    if reasons:
        console.print("Closed because: " + ", ".join(f"{reason} {count}" for reason, count in reasons.most_common()))
