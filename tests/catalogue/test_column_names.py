"""Names of columns, as formats and templates use them."""

from __future__ import annotations

import re

import pytest

from caslie_ray.catalogue._column_names import column_name, unique_names


@pytest.mark.parametrize(
    ("column", "name"),
    [
        ("Body (HTML)", "body_html"),
        ("Attribute 1 value(s)", "attribute_1_value_s"),
        ("\ufeffID", "id"),
        (" Image  Src ", "image_src"),
        ("g:image_link", "image_link"),
        ("{http://base.google.com/ns/1.0}image_link", "image_link"),
        ("Größe (cm)", "größe_cm"),
        ("İsim", "i_sim"),
        ("_store", "store"),
        ("***", ""),
    ],
)
def test_a_name_is_lower_cased_with_single_underscores(column: str, name: str) -> None:
    assert column_name(column) == name
    assert re.fullmatch(r"\w*", name)


def test_repeated_and_empty_names_are_numbered() -> None:
    assert unique_names(["Color", "color", "***", "COLOR", "", None]) == [
        *("color", "color_2", "column_3", "color_3", "column_5", "none"),
    ]


def test_a_numbered_name_that_is_taken_is_not_given_again() -> None:
    assert unique_names(["color_2", "color", "Color"]) == ["color_2", "color", "color_3"]
