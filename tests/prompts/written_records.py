"""Records written by hand for templates of the collection that no guessed record satisfies, by (dataset, subset)."""

from __future__ import annotations

from typing import Any

_CHAT: dict[str, Any] = {
    "context": "Bees dance to tell ||| where flowers are.",
    "thread": [{"userId": "Alice", "text": "Do they dance?"}, {"userId": "Bob", "text": "All day }} long."}],
    "evaluation": [{"userId": "Alice", "engagement": 5}, {"userId": "Bob", "engagement": 2}],
}
_PROFILE_CHAT: dict[str, Any] = {
    "user_profile": [["I ", "like ", "tea."], ["I have a cat."]],
    "dialog": [{"sender_class": "Human", "text": "Tea?"}, {"sender_class": "Bot", "text": "My cat drank it."}],
}
_FUSION = {
    "discourse_type": "PAIR_CONN",
    "incoherent_first_sentence": "It rained ||| a lot.",
    "incoherent_second_sentence": "We stayed in.",
    "coherent_first_sentence": "It rained a lot.",
    "coherent_second_sentence": "So we stayed }} in.",
}
_ENTITIES = {
    "vertexSet": [[{"name": "Ada", "type": "PER"}, {"name": "Ada", "type": "PER"}], [{"name": "Turin", "type": "LOC"}]],
    "sents": [["Ada", "lives", "in", "Turin", "."], ["Turin", "is", "old", "."]],
}
_RESTAURANT = {
    "meaning_representation": "name[The ||| Mill], eatType[pub], food[Thai], priceRange[cheap],"
    " customer rating[5 out of 5], area[riverside], familyFriendly[yes], near[The Bridge]",
    "human_reference": "By the river there is a cheap Thai pub, The Mill. " * 60,
}
_HEADLINES = {
    "original1": "Mayor opens new <bridge/> in town",
    "edit1": "sandwich ||| shop",
    "original2": "Mayor <opens/> new bridge in town",
    "edit2": "eats",
    "label": 2,
}
_MOTION = {
    "sentence": "A dog chased the ||| ball.",
    "motion": "yes",
    "motion_entities": [{"entity": "ball", "start_index": 20}, {"entity": "dog", "start_index": 2}],
}
_MOVIES = {
    "dialogue_turns": {"speaker": [0, 1] * 3, "utterance": [f"Turn {number} about films." for number in range(6)]},
}
_CODE = {
    "prompt": "def double(x):\n",
    "canonical_solution": "    return 2 * x\n",
    "entry_point": "double",
    "test": "def check(f):\n    assert f(2) == 4\n    assert f(3) == 6\n",
}
_ANSWERED = {
    "id": "english-17",
    "title": "Rivers",
    "context": "The Po is the longest river of Italy. " * 70,
    "question": "Which river is the longest?",
    "answers": {"text": ["The Po", "Po"], "answer_start": [0, 4]},
}
_QUESTIONS = [
    {"label-coarse": coarse, "label-fine": fine, "text": "What |||?"} for coarse, fine in ((3, 5), (4, 39), (5, 21))
]

_NESTED_SEPARATOR = {**_CHAT, "thread": [*_CHAT["thread"], {"userId": "Alice", "text": "Left ||| right."}]}

WRITTEN_RECORDS: dict[tuple[str, str], list[dict[str, Any]]] = {
    ("cbt", "raw"): [{"title": "Author_Name___A_Small_Tale.of.Bees.txt.out", "content": "Once ||| upon a time."}],
    ("conv_ai", ""): [_CHAT, _NESTED_SEPARATOR],
    ("conv_ai_2", ""): [_PROFILE_CHAT],
    ("discofuse", "discofuse-sport"): [_FUSION],
    ("discofuse", "discofuse-wikipedia"): [_FUSION],
    ("docred", ""): [_ENTITIES],
    ("e2e_nlg_cleaned", ""): [_RESTAURANT],
    ("humicroedit", "subtask-2"): [_HEADLINES],
    ("limit", ""): [_MOTION, {"sentence": "Nothing moves.", "motion": "no", "motion_entities": []}],
    ("mdd", "task3_qarecs"): [_MOVIES],
    ("nlu_evaluation_data", ""): [{"text": "Play ||| a song.", "scenario": "music"}],
    ("openai_humaneval", ""): [_CODE],
    ("piqa", ""): [{"goal": "Open a jar", "sol1": "Twist the lid.", "sol2": "Sing }} to it.", "label": 0}],
    ("trec", ""): _QUESTIONS,
    ("tydiqa", "secondary_task"): [_ANSWERED],
    **{
        ("subjqa", domain): [{"domain": domain, "context": "It was worth ||| the price."}]
        for domain in ("books", "electronics", "grocery", "movies", "restaurants", "tripadvisor")
    },
}
