"""The catalogue: what it holds, how a user's file extends it, what it refuses."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from t0train.core.errors import UserError
from t0train.tasks import Dataset, load_catalogue, task_name


def test_stages_hold_as_many_datasets_as_t0s_list() -> None:
    """Sanh et al. 2021, datasets.csv: 38, then 10 and 6 more."""
    stages = Counter(dataset.stage for dataset in load_catalogue().values())
    assert (stages["BASE"], stages["GPT_EVAL"], stages["SGLUE"]) == (38, 10, 6)


def test_held_out_datasets_are_the_eleven_columns_of_the_papers_table() -> None:
    held_out = {key for key, dataset in load_catalogue().items() if dataset.held_out == "BASE"}
    assert held_out == {
        *("super_glue/rte", "super_glue/cb", "anli/r1", "anli/r2", "anli/r3", "super_glue/wsc.fixed"),
        *("winogrande/winogrande_xl", "super_glue/copa", "hellaswag", "story_cloze/2016", "super_glue/wic"),
    }


def test_anli_rounds_share_records_folder_and_templates_and_add_up_to_anli() -> None:
    catalogue = load_catalogue()
    rounds = [catalogue[f"anli/r{number}"] for number in (1, 2, 3)]
    assert [(r.folder, r.origin) for r in rounds] == [("anli/default", ("anli", ""))] * 3
    assert [(r.train_split, r.eval_split) for r in rounds] == [(f"train_r{n}", f"dev_r{n}") for n in (1, 2, 3)]
    assert sum(r.train_size or 0 for r in rounds) == 162_865
    assert rounds[1].task_name("GPT-3 style") == "anli_GPT_3_style_r2"


def test_datasets_not_on_the_hub_say_how_to_get_them() -> None:
    assert all(dataset.note for dataset in load_catalogue().values() if not dataset.hub_id)


@pytest.mark.parametrize(
    ("dataset", "subset", "template", "name"),
    [  # configurations of bigscience/P3
        ("glue", "mrpc", "want to know", "glue_mrpc_want_to_know"),
        ("ai2_arc", "ARC-Easy", "heads_or_tails", "ai2_arc_ARC_Easy_heads_or_tails"),
        ("super_glue", "wsc.fixed", "does p stand for", "super_glue_wsc.fixed_does_p_stand_for"),
        ("hellaswag", "", "Appropriate continuation - Yes or No", "hellaswag_Appropriate_continuation_Yes_or_No"),
        ("cos_e", "v1.11", "i_think", "cos_e_v1.11_i_think"),
        ("cnn_dailymail", "3.0.0", "sum_in_brief", "cnn_dailymail_3.0.0_sum_in_brief"),
        ("d", "", "ends in a blank ", "d_ends_in_a_blank_"),
        ("d", "", "größe?! (x)", "d_größe_x_"),
    ],
)
def test_task_names_are_t0s(dataset: str, subset: str, template: str, name: str) -> None:
    assert task_name(dataset, subset, template) == name


def test_a_users_file_adds_datasets_and_replaces_known_ones(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_text('name,subset,train_size,note\nmine,de,1200,"records, ours"\nimdb,,77,\n\n', encoding="utf-8")
    catalogue = load_catalogue(path)
    assert catalogue["mine/de"] == Dataset("mine", "de", train_size=1200, note="records, ours")
    assert catalogue["mine/de"].folder == "mine/de"
    assert (catalogue["imdb"].train_size, catalogue["imdb"].stage) == (77, "")
    assert catalogue["trec"] == load_catalogue()["trec"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("name,trainsize\na,3\n", "did you mean 'train_size'"),
        ("name,name\na,b\n", "'name' twice"),
        ("subset\na\n", "no column 'name'"),
        ("name,train_size\na,many\n", "line 2: train_size is 'many'"),
        ("name,train_size\na,0\n", "above 0"),
        ("name,train_size\na,-3\n", "above 0"),
        ("name,train_size\na,1.5\n", "whole number"),
        ("name,stage\na,base\n", "stage is 'base', expected BASE"),
        ("name,held_out\na,yes\n", "held_out is 'yes'"),
        ("name,subset\na,b\na,b\n", "line 3: dataset 'a/b' occurs twice, first on line 2"),
        ("name,subset\na\n", "line 2: 1 cells"),
        ("name,family\na,x,y\n", "line 2: 3 cells"),
        ("name,family\n,x\n", "the name is empty"),
        ("name\n../../etc\n", "not a path"),
        ('name,note\na,"never closed\n', "line 2: a quote is opened"),
        ('name,note\na,"two\nlines"\n\nb,x,y\n', "line 5: 3 cells"),
        ("\n\n", "is empty"),
        ("name,\na,\n", "unknown column ''"),
        ("name,train_size\na,1e6\n", "line 2: train_size is '1e6'"),
        ("name,train_size\na,007\n", "line 2: train_size is '007'"),
        (f"name,train_size\na,{'9' * 5000}\n", "line 2: train_size is '999"),
        ("name\na\nb$c\n", "line 3: name is 'b$c', but a name is expected"),
        ("name\na//b\n", "line 2: name is 'a//b'"),
        ("name\na/../b\n", "line 2: name is 'a/../b'"),
        ("name\n.hidden\n", "line 2: name is '.hidden'"),
        ("name,subset\na,*\n", "line 2: subset is '*'"),
        ("name,parent\na,/etc\n", "line 2: parent is '/etc'"),
        ('name\n"a\nb"\n', "line 3: name is 'a\\nb'"),
        (f"name\n{'x' * 300}\n", "line 2: name has 300 characters"),
        ("name,train_split\na,train[:10%]\n", "line 2: train_split: split 'train[:10%]' cannot be read"),
        ("name,hub_id\na,https://hub/a\n", "line 2: hub_id is 'https://hub/a', expected owner/name"),
    ],
)
def test_a_bad_catalogue_is_refused_in_one_message(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "mine.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError) as error:
        load_catalogue(path)
    assert message in str(error.value)
    assert len(str(error.value)) < 500
    assert "mine.csv" in str(error.value)


def test_unreadable_catalogues_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.csv: No such file"):
        load_catalogue(tmp_path / "none.csv")
    (tmp_path / "latin.csv").write_bytes(b"name,note\na,b\n\xe9t\xe9,x\n")
    with pytest.raises(UserError, match=r"latin\.csv, line 3, column 'name': the byte 0xE9 is not UTF-8"):
        load_catalogue(tmp_path / "latin.csv")


def test_names_as_the_hub_has_them_and_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_bytes("\ufeffname,subset,hub_id\nZaid/coqa,größe v1.0+x,a-b/c.d\n".encode())
    assert load_catalogue(path)["Zaid/coqa/größe v1.0+x"].hub_id == "a-b/c.d"
