"""Which settings are chosen for which situation."""

from dataclasses import replace

import pytest

from sagitta.models.recipe import Recipe, Situation, choose


@pytest.mark.parametrize(
    ("situation", "name", "word"),
    [
        (Situation(8, 1_400), "resnet-whitened", "thumbnails"),
        (Situation(8, 1_400, model="simple-cnn"), "simple-cnn", "small images"),
        (Situation(28, 54_000), "resnet-whitened", "thumbnails"),
        (Situation(32, 8_000, model="resnet20"), "resnet20", "small images"),
        (Situation(224, 300), "resnet18", "photos from scratch"),
        (Situation(224, 300, model="resnet50"), "resnet50", "photos from scratch"),
        (Situation(224, 300, pretrained=True), "mobilenetv2_100", "few photos"),
        (Situation(224, 300, pretrained=True, device="cuda"), "resnet50", "few photos"),
        (Situation(224, 10**6, pretrained=True, model="vit_tiny_patch16_224"), "vit_tiny_patch16_224", "many photos"),
        (Situation(224, 300, pretrained=True, tune="head"), "mobilenetv2_100", "head alone"),
    ],
)
def test_each_situation_has_its_recipe(situation: Situation, name: str, word: str) -> None:
    recipe = choose(situation)
    assert recipe.name == name and word in recipe.reason and recipe == choose(situation)


def test_fewer_rows_mean_more_epochs_and_steps() -> None:
    photos, tiny = ([choose(Situation(size, rows)) for rows in (10**6, 2500, 100, 0)] for size in (224, 8))
    assert [recipe.epochs for recipe in photos] == [10, 20, 30, 30]
    assert [(recipe.epochs, recipe.batch_size) for recipe in tiny] == [(4, 128), (12, 128), (40, 32), (40, 128)]
    assert [choose(Situation(8, 1_439, epochs=epochs)).batch_size for epochs in (0, 2, 100)] == [128, 32, 128]


def test_thumbnails_take_bfloat16_where_it_is_fast() -> None:
    precisions = [choose(Situation(32, 8_000, bf16=bf16)).precision for bf16 in (False, True)]
    assert precisions == ["32-true", "bf16-mixed"]
    assert [choose(Situation(32, rows)).epochs for rows in (500, 8_000, 54_000)] == [40, 30, 4]


def test_few_epochs_whether_wanted_or_decided_and_tiny_images_do_without_cutout() -> None:
    recipes = [
        choose(Situation(32, rows, epochs=n)) for rows, n in ((8_000, 0), (8_000, 2), (54_000, 0), (54_000, 100))
    ]
    assert [recipe.cutout > 0 for recipe in recipes] == ["cutout" in recipe.reason for recipe in recipes]
    assert [recipe.cutout > 0 for recipe in recipes] == [True, False, False, True]


def test_no_cycle_from_scratch_ends_early() -> None:
    recipes = [choose(Situation(size, 1_000)) for size in (8, 28, 224)]
    assert {(recipe.schedule, recipe.patience) for recipe in recipes} == {("one-cycle", 0)}


def test_the_network_of_0_1_0_keeps_its_name_and_takes_the_recipe() -> None:
    old, new = (choose(Situation(32, 8_000, model=name)) for name in ("resnet-small", "resnet-whitened"))
    assert replace(old, name=new.name) == new == choose(Situation(32, 8_000))


def test_fine_tuning_learns_gently_and_keeps_an_average() -> None:
    few = choose(Situation(224, 300, pretrained=True))
    scratch = choose(Situation(224, 300))
    assert few.layer_decay < scratch.layer_decay == 1 and few.ema > scratch.ema == 0 and few.auto == "trivial"


def test_unknown_rows_are_not_few() -> None:
    unknown, many = (choose(Situation(224, rows, pretrained=True)) for rows in (0, 10**6))
    assert unknown == many and not unknown.freeze_bn and choose(Situation(224, 300, pretrained=True)).freeze_bn
    assert Situation(224, 300, classes=3).images_a_class == 100 and Situation(224, 300).images_a_class == 0


def test_every_reason_is_one_line() -> None:
    sizes, rows, kinds = (28, 224), (0, 300, 10**6), (False, True)
    recipes: list[Recipe] = [choose(Situation(s, r, pretrained=p)) for s in sizes for r in rows for p in kinds]
    assert all("\n" not in recipe.reason and len(recipe.reason) < 200 for recipe in recipes)
